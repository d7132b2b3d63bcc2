"""Files, kept under the sha256 of their bytes: teachers, checkpoints, students, reports.

A file appears under its name whole or not at all: it is written to a temporary name in the same file system, fsynced,
renamed, and its directory fsynced. The same bytes twice are the same file. Nothing here knows who needs a file; that
is `Store.referenced`.
"""

import errno
import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jobs.errors import ArtifactCorrupt, ArtifactNotFound, StorageFull, UploadTooLarge
from jobs.settings import Settings

FIRST_BYTES = 4096
CHUNK_BYTES = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def open_artifacts(settings: Settings) -> "ArtifactStore":
    """The artifact store of these settings, below `data_dir`."""
    return ArtifactStore(settings.data_dir.resolve() / "artifacts")


class Upload:
    """A file on its way in: hashed and counted as it comes. Ends with `commit` or `discard`, or as a `with` block."""

    def __init__(self, store: "ArtifactStore", path: Path, max_bytes: int) -> None:
        self.path = path  # the temporary file; readable after `flush`
        self.bytes = 0
        self.first_bytes = b""
        self._store = store
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        with _storage_full():
            self._file: BinaryIO = open(path, "xb")  # noqa: SIM115 - closed by commit or discard

    @property
    def sha256(self) -> str:
        """Digest of what has come so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; UploadTooLarge or StorageFull, after which nothing is left on disk."""
        try:
            if self.bytes + len(chunk) > self._max_bytes:
                raise UploadTooLarge(self._max_bytes)
            with _storage_full():
                self._file.write(chunk)
        except BaseException:
            self.discard()
            raise
        self.bytes += len(chunk)
        self._digest.update(chunk)
        if len(self.first_bytes) < FIRST_BYTES:
            self.first_bytes += chunk[: FIRST_BYTES - len(self.first_bytes)]

    def flush(self) -> None:
        """Make what has come readable at `path`."""
        with self._discarding(), _storage_full():
            self._file.flush()

    def commit(self) -> tuple[str, int]:
        """Keep the file for good; return its sha256 and size. StorageFull, after which nothing is left on disk."""
        with self._discarding(), _storage_full():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._store._adopt(self.path, self.sha256)
        return self.sha256, self.bytes

    def discard(self) -> None:
        """Forget the file; harmless after `commit` and when repeated."""
        try:
            self._file.close()
        except OSError as error:  # closing writes the buffer: on a full disk it fails again
            if error.errno not in _FULL:
                raise
        finally:
            self.path.unlink(missing_ok=True)

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


class ArtifactStore:
    """Files below one directory, by digest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._temporary = root / "temporary"
        for directory in (self._blobs, self._temporary):
            directory.mkdir(parents=True, exist_ok=True)

    def begin(self, max_bytes: int) -> Upload:
        """Start an upload of at most `max_bytes`; StorageFull."""
        return Upload(self, self._temporary / uuid.uuid4().hex, max_bytes)

    def receive(self, chunks: Iterable[bytes], max_bytes: int) -> Upload:
        """Take a whole stream; the caller commits or discards. UploadTooLarge, StorageFull: nothing is left."""
        upload = self.begin(max_bytes)
        with upload._discarding():
            for chunk in chunks:
                upload.write(chunk)
            upload.flush()
        return upload

    async def receive_async(self, chunks: AsyncIterable[bytes], max_bytes: int) -> Upload:
        """`receive` for a request body."""
        upload = self.begin(max_bytes)
        with upload._discarding():
            async for chunk in chunks:
                upload.write(chunk)
            upload.flush()
        return upload

    def put_file(self, path: Path) -> tuple[str, int]:
        """Keep a copy of a file of our own; return its sha256 and size. StorageFull."""
        with open(path, "rb") as source:
            return self.receive(iter(lambda: source.read(CHUNK_BYTES), b""), os.fstat(source.fileno()).st_size).commit()

    def path(self, sha256: str) -> Path:
        """Where the bytes are, unverified; ArtifactNotFound."""
        path = self._place(sha256)
        if not path.is_file():
            raise ArtifactNotFound(sha256)
        return path

    def size(self, sha256: str) -> int:
        """How many bytes; ArtifactNotFound."""
        return self.path(sha256).stat().st_size

    def exists(self, sha256: str) -> bool:
        """Whether there is a file under this digest."""
        return self._place(sha256).is_file()

    def open(self, sha256: str) -> BinaryIO:
        """The bytes, verified to the last one before the first is handed out; ArtifactNotFound, ArtifactCorrupt.

        The descriptor stays good when the file is deleted meanwhile.
        """
        try:
            file = open(self._place(sha256), "rb")  # noqa: SIM115 - the caller closes it
        except FileNotFoundError as error:
            raise ArtifactNotFound(sha256) from error
        try:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ArtifactCorrupt(sha256)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def delete(self, sha256: str) -> bool:
        """Remove a file; whether there was one. For files that others may need too: `remove_unreferenced`."""
        try:
            self._place(sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """While inside, nothing is removed as unreferenced: put a file and write the row that refers to it in here."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def remove_unreferenced(self, digests: Iterable[str], referenced: Callable[[str], bool]) -> list[str]:
        """Remove those of `digests` that `referenced` denies; return what was removed.

        Asked under a lock that excludes `keeping`, so that no row is written about a file that is just going away.
        """
        removed = []
        for sha256 in digests:
            with self._locked(fcntl.LOCK_EX):
                if not referenced(sha256) and self.delete(sha256):
                    removed.append(sha256)
        return removed

    def digests(self, *, older_than_seconds: float) -> Iterator[str]:
        """Digests of all files last written before then."""
        limit = time.time() - older_than_seconds
        for path in self._blobs.glob("??/*"):
            if _SHA256.fullmatch(path.name) and _modified(path) <= limit:
                yield path.name

    def sweep_temporary(self, older_than_seconds: float) -> int:
        """Remove temporary files that nobody has written to for so long; return how many."""
        limit = time.time() - older_than_seconds
        stale = [path for path in self._temporary.iterdir() if _modified(path) <= limit]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _place(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise ArtifactNotFound(sha256)
        return self._blobs / sha256[:2] / sha256

    def _adopt(self, path: Path, sha256: str) -> None:
        """Rename a synced temporary file to its place, for good."""
        place = self._place(sha256)
        try:
            place.parent.mkdir()
            _sync_directory(self._blobs)
        except FileExistsError:
            pass
        os.replace(path, place)
        _sync_directory(place.parent)

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        with open(self.root / ".lock", "ab") as file:
            fcntl.flock(file, kind)
            yield


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _modified(path: Path) -> float:
    """Time of the last write; for ever in the future when the file is gone already."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


@contextmanager
def _storage_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("no space left for files") from error
        raise
