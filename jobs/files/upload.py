"""An upload: a file that is written to a directory of this host, hashed and counted, and then kept or discarded."""

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
    """A file that is still arriving. Its bytes are hashed and counted. `commit` or `discard` or a `with` ends it."""

    def __init__(self, path: Path, *, max_bytes: int, keep: Callable[[Path, str], None]) -> None:
        self.path = path  # the temporary file; readable after `flush`
        self.bytes = 0
        self.first_bytes = b""
        self._max_bytes = max_bytes
        self._keep = keep
        self._digest = hashlib.sha256()
        with raising_storage_full():
            self._file: BinaryIO = open(path, "xb")  # noqa: SIM115 - closed by commit or discard

    @property
    def sha256(self) -> str:
        """Digest of the bytes written so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Write the next bytes. An error removes the file.

        Raises:
            UploadTooLarge: the upload has more than `max_bytes` bytes.
            StorageFull: the disk is full.
        """
        with self.discarding():
            if self.bytes + len(chunk) > self._max_bytes:
                raise UploadTooLarge(self._max_bytes)
            with raising_storage_full():
                self._file.write(chunk)
        self.bytes += len(chunk)
        self._digest.update(chunk)
        if len(self.first_bytes) < FIRST_BYTES:
            self.first_bytes += chunk[: FIRST_BYTES - len(self.first_bytes)]

    def flush(self) -> None:
        """Make the bytes written so far readable at `path`."""
        with self.discarding(), raising_storage_full():
            self._file.flush()

    def commit(self) -> tuple[str, int]:
        """Keep the file durably; return its sha256 and size. An error removes the file.

        Raises:
            StorageFull: the disk is full.
            StorageUnavailable: the object store does not answer.
        """
        with self.discarding(), raising_storage_full():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._keep(self.path, self.sha256)
        self.path.unlink(missing_ok=True)
        return self.sha256, self.bytes

    def discard(self) -> None:
        """Remove the file. After `commit` or a second time this does nothing."""
        try:
            self._file.close()
        except OSError as error:  # closing writes the buffer: on a full disk it fails again
            if error.errno not in _FULL:
                raise
        finally:
            self.path.unlink(missing_ok=True)

    @contextmanager
    def discarding(self) -> Iterator[None]:
        """Remove the file if the block raises an exception."""
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
def raising_storage_full() -> Iterator[None]:
    """Raise StorageFull in place of the system's errors for a full disk, a quota or a size limit."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("no space left for files") from error
        raise
