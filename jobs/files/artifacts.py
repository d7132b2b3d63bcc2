"""The artifact store keeps files (teachers, checkpoints, students, reports) under the sha256 of their bytes.

`Blobs` decides where the bytes lie. The store hashes a file when it arrives, verifies it each time it is read, and
removes files that no row refers to. `Store.referenced` decides whether a row refers to a file.
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
from jobs.files.upload import Upload, raising_storage_full
from jobs.settings import Settings

log = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024


def open_artifacts(settings: Settings) -> "ArtifactStore":
    """Return the artifact store of these settings: in a bucket if they name one, otherwise below `data_dir`.

    Raises:
        StorageUnavailable: the settings name a bucket, but boto3 is not installed.
    """
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
    """Keeps files by digest in `blobs`. A file that is still arriving lies in `temporary`, a directory of this host."""

    def __init__(self, blobs: Blobs, *, temporary: Path) -> None:
        self.blobs = blobs
        self._temporary = temporary
        temporary.mkdir(parents=True, exist_ok=True)

    # In

    def begin(self, max_bytes: int) -> Upload:
        """Start an upload of at most `max_bytes`.

        Raises:
            StorageFull: the disk is full.
        """
        return Upload(self._temporary / uuid.uuid4().hex, max_bytes=max_bytes, keep=self.blobs.put)

    def receive(self, chunks: Iterable[bytes], max_bytes: int) -> Upload:
        """Write a whole stream to an upload, which the caller commits or discards. An error leaves no file.

        Raises:
            UploadTooLarge: the stream has more than `max_bytes` bytes.
            StorageFull: the disk is full.
        """
        upload = self.begin(max_bytes)
        with upload.discarding():
            for chunk in chunks:
                upload.write(chunk)
            upload.flush()
        return upload

    async def receive_async(self, chunks: AsyncIterable[bytes], max_bytes: int) -> Upload:
        """Do the same as `receive`, for an asynchronous stream."""
        upload = self.begin(max_bytes)
        with upload.discarding():
            async for chunk in chunks:
                upload.write(chunk)
            upload.flush()
        return upload

    def put_file(self, path: Path) -> tuple[str, int]:
        """Keep a copy of the file at `path`; return its sha256 and size. Raises as `put` does."""
        with open(path, "rb") as source:
            return self.put(source)

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Keep a copy of an open file; return its sha256 and size.

        Raises:
            StorageFull: the disk is full.
            StorageUnavailable: the object store does not answer.
        """
        size = os.fstat(source.fileno()).st_size
        return self.receive(iter(lambda: source.read(CHUNK_BYTES), b""), size).commit()

    # Out

    def exists(self, sha256: str) -> bool:
        """True if the store has a file with this digest."""
        return is_digest(sha256) and self.blobs.exists(sha256)

    def size(self, sha256: str) -> int:
        """Number of bytes of a file. The bytes are not verified.

        Raises:
            ArtifactNotFound: the store has no file with this digest.
            StorageUnavailable: the object store does not answer.
        """
        if not is_digest(sha256):
            raise ArtifactNotFound(sha256)
        return self.blobs.size(sha256)

    def open(self, sha256: str) -> BinaryIO:
        """Open a file after all its bytes were verified. It stays readable if it is deleted meanwhile.

        Raises:
            ArtifactNotFound: the store has no file with this digest.
            ArtifactCorrupt: the bytes do not have this digest.
            StorageUnavailable: the object store does not answer.
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
        """Write a verified copy of a file to `path`, which must not exist.

        Raises:
            StorageFull: the disk is full. Otherwise the exceptions are those of `open`.
        """
        with raising_storage_full(), self.open(sha256) as source, open(path, "xb") as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)
        return path

    @contextmanager
    def borrowed(self, sha256: str) -> Iterator[Path]:
        """Give the block a verified copy of a file, which is removed afterwards. It raises what `fetch` raises."""
        path = self._temporary / uuid.uuid4().hex
        try:
            yield self.fetch(sha256, path)
        finally:
            path.unlink(missing_ok=True)

    # Away

    def delete(self, sha256: str) -> bool:
        """Remove a file and return whether there was one. Use `remove_unreferenced` if other rows may refer to it."""
        return is_digest(sha256) and self.blobs.delete(sha256)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Inside the block no file is removed as unreferenced. Inside it, put a file and write its row."""
        with self.blobs.keeping():
            yield

    def remove_unreferenced(self, digests: Iterable[str], referenced: Callable[[str], bool]) -> list[str]:
        """Remove the files of `digests` for which `referenced` returns False; return the digests of the removed files.

        A lock excludes `keeping` meanwhile, so that no new row can refer to a file that is being removed. If the ledger
        or the store does not answer, the file stays until the next garbage collection.
        """
        removed = []
        for sha256 in digests:
            try:
                with self.blobs.removing(sha256):
                    if not referenced(sha256) and self.delete(sha256):
                        removed.append(sha256)
            except LedgerUnavailable as error:
                log.warning("a file stays until garbage collection", extra={"sha256": sha256, "reason": str(error)})
        return removed

    def digests(self) -> Iterator[str]:
        """Return the digests of all files."""
        return self.blobs.digests()

    def stale_uploads(self, older_than_seconds: float) -> list[Path]:
        """Temporary files of this host whose last write is more than `older_than_seconds` ago."""
        limit = time.time() - older_than_seconds
        return [path for path in self._temporary.iterdir() if _modified(path) <= limit]

    def sweep_temporary(self, older_than_seconds: float) -> int:
        """Remove these stale uploads and return their number."""
        stale = self.stale_uploads(older_than_seconds)
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def check(self) -> None:
        """Check that the store can keep files.

        Raises:
            StorageFull: the disk is full.
            StorageUnavailable: the object store does not answer.
        """
        self.blobs.check()


def _digest_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _modified(path: Path) -> float:
    """Time of the last write; infinity if the file no longer exists."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
