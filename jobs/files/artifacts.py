"""Files, kept under the sha256 of their bytes: teachers, checkpoints, students, reports.

Where the bytes are is the business of `Blobs`. Here they are hashed on their way in and verified on every way out, and
what nobody needs is removed. Nothing here knows who needs a file; that is `Store.referenced`.
"""

import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jobs.digests import is_digest
from jobs.errors import ArtifactCorrupt, ArtifactNotFound, LedgerUnavailable, StorageUnavailable
from jobs.files.backend import Blobs
from jobs.files.local import Directory
from jobs.files.upload import Upload, full_disk_told
from jobs.settings import Settings

log = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024


def open_artifacts(settings: Settings) -> "ArtifactStore":
    """The artifact store of these settings: in a bucket, or else below `data_dir`."""
    root = settings.data_dir.resolve() / "artifacts"
    if settings.artifacts_url is None:
        return ArtifactStore(Directory(root), temporary=root / "temporary")
    try:
        from jobs.files.s3 import Bucket
    except ModuleNotFoundError as error:  # an extra: hosts without a bucket need no boto3
        raise StorageUnavailable("files in a bucket need boto3: install dfkd[s3]") from error
    scratch = root / "temporary"
    bucket = Bucket(settings.artifacts_url, endpoint_url=settings.artifacts_endpoint_url, scratch=scratch)
    return ArtifactStore(bucket, temporary=scratch)


class ArtifactStore:
    """Files by digest, in `blobs`; on their way in they lie in `temporary`, a directory of this host."""

    def __init__(self, blobs: Blobs, *, temporary: Path) -> None:
        self.blobs = blobs
        self._temporary = temporary
        temporary.mkdir(parents=True, exist_ok=True)

    # In

    def begin(self, max_bytes: int) -> Upload:
        """Start an upload of at most `max_bytes`; StorageFull."""
        return Upload(self._temporary / uuid.uuid4().hex, max_bytes=max_bytes, keep=self.blobs.put)

    def receive(self, chunks: Iterable[bytes], max_bytes: int) -> Upload:
        """Take a whole stream; the caller commits or discards. UploadTooLarge, StorageFull: nothing is left."""
        upload = self.begin(max_bytes)
        with upload.discarding():
            for chunk in chunks:
                upload.write(chunk)
            upload.flush()
        return upload

    async def receive_async(self, chunks: AsyncIterable[bytes], max_bytes: int) -> Upload:
        """`receive` for a request body."""
        upload = self.begin(max_bytes)
        with upload.discarding():
            async for chunk in chunks:
                upload.write(chunk)
            upload.flush()
        return upload

    def put_file(self, path: Path) -> tuple[str, int]:
        """`put` for a file of our own."""
        with open(path, "rb") as source:
            return self.put(source)

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Keep a copy of an open file; return its sha256 and size. StorageFull, StorageUnavailable."""
        size = os.fstat(source.fileno()).st_size
        return self.receive(iter(lambda: source.read(CHUNK_BYTES), b""), size).commit()

    # Out

    def exists(self, sha256: str) -> bool:
        """Whether there is a file under this digest."""
        return is_digest(sha256) and self.blobs.exists(sha256)

    def size(self, sha256: str) -> int:
        """Number of bytes, unverified; ArtifactNotFound, StorageUnavailable."""
        if not is_digest(sha256):
            raise ArtifactNotFound(sha256)
        return self.blobs.size(sha256)

    def open(self, sha256: str) -> BinaryIO:
        """The bytes, verified to the last one before the first is handed out.

        ArtifactNotFound, ArtifactCorrupt, StorageUnavailable. The file stays good when it is deleted meanwhile.
        """
        if not is_digest(sha256):
            raise ArtifactNotFound(sha256)
        file = self.blobs.open(sha256)
        try:
            if _digest_of(file) != sha256:
                log.critical("artifact corrupt: never served", extra={"sha256": sha256})
                raise ArtifactCorrupt(sha256)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def fetch(self, sha256: str, path: Path) -> Path:
        """Write a verified copy to `path`; as `open`, and StorageFull."""
        with full_disk_told(), self.open(sha256) as source, open(path, "xb") as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)
        return path

    @contextmanager
    def borrowed(self, sha256: str) -> Iterator[Path]:
        """A verified copy that is there for as long as the block; as `fetch`."""
        path = self._temporary / uuid.uuid4().hex
        try:
            yield self.fetch(sha256, path)
        finally:
            path.unlink(missing_ok=True)

    # Away

    def delete(self, sha256: str) -> bool:
        """Remove a file; whether there was one. For files that others may need too: `remove_unreferenced`."""
        return is_digest(sha256) and self.blobs.delete(sha256)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """While inside, nothing is removed as unreferenced: put a file and write the row that refers to it in here."""
        with self.blobs.keeping():
            yield

    def remove_unreferenced(self, digests: Iterable[str], referenced: Callable[[str], bool]) -> list[str]:
        """Remove those of `digests` that `referenced` denies; return what was removed.

        Asked under a lock that excludes `keeping`, so that no row is written about a file that is just going away.
        What cannot be decided or removed now stays for the janitor.
        """
        removed = []
        for sha256 in digests:
            try:
                with self.blobs.removing(sha256):
                    if not referenced(sha256) and self.delete(sha256):
                        removed.append(sha256)
            except LedgerUnavailable as error:
                log.warning("a file stays for the janitor", extra={"sha256": sha256, "reason": str(error)})
        return removed

    def digests(self) -> Iterator[str]:
        """Digests of all files."""
        return self.blobs.digests()

    def stale_uploads(self, older_than_seconds: float) -> list[Path]:
        """Temporary files of this host that nobody has written to for so long."""
        limit = time.time() - older_than_seconds
        return [path for path in self._temporary.iterdir() if _modified(path) <= limit]

    def sweep_temporary(self, older_than_seconds: float) -> int:
        """Remove them; return how many."""
        stale = self.stale_uploads(older_than_seconds)
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def check(self) -> None:
        """Return when files could be kept; StorageFull, StorageUnavailable otherwise."""
        self.blobs.check()


def _digest_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _modified(path: Path) -> float:
    """Time of the last write; for ever in the future when the file is gone already."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
