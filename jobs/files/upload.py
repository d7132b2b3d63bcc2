"""Files on their way in: written below a directory of this host, hashed and counted, kept or forgotten."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jobs.errors import StorageFull, UploadTooLarge

FIRST_BYTES = 4096
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Upload:
    """A file on its way in: hashed and counted as it comes. Ends with `commit` or `discard`, or as a `with` block."""

    def __init__(self, path: Path, *, max_bytes: int, keep: Callable[[Path, str], None]) -> None:
        self.path = path  # the temporary file; readable after `flush`
        self.bytes = 0
        self.first_bytes = b""
        self._max_bytes = max_bytes
        self._keep = keep
        self._digest = hashlib.sha256()
        with full_disk_told():
            self._file: BinaryIO = open(path, "xb")  # noqa: SIM115 - closed by commit or discard

    @property
    def sha256(self) -> str:
        """Digest of what has come so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; UploadTooLarge or StorageFull, after which nothing is left on disk."""
        with self.discarding():
            if self.bytes + len(chunk) > self._max_bytes:
                raise UploadTooLarge(self._max_bytes)
            with full_disk_told():
                self._file.write(chunk)
        self.bytes += len(chunk)
        self._digest.update(chunk)
        if len(self.first_bytes) < FIRST_BYTES:
            self.first_bytes += chunk[: FIRST_BYTES - len(self.first_bytes)]

    def flush(self) -> None:
        """Make what has come readable at `path`."""
        with self.discarding(), full_disk_told():
            self._file.flush()

    def commit(self) -> tuple[str, int]:
        """Keep the file for good; return its sha256 and size.

        StorageFull, StorageUnavailable, after which nothing is left on disk.
        """
        with self.discarding(), full_disk_told():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._keep(self.path, self.sha256)
        self.path.unlink(missing_ok=True)
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
    def discarding(self) -> Iterator[None]:
        """Whatever is raised in here, nothing is left on disk."""
        try:
            yield
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


@contextmanager
def full_disk_told() -> Iterator[None]:
    """StorageFull, whatever the system calls it."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("no space left for files") from error
        raise
