"""Blobs in files below a directory of this host.

A file appears under its name only when it is complete: the caller writes and fsyncs it under a temporary name in the
same file system; then it is renamed and its directory is fsynced. Equal bytes are stored once.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from jobs.digests import is_digest
from jobs.errors import ArtifactNotFound, StorageUnavailable


class Directory:
    """Blobs in files, spread over 256 directories. A quarantine mark is an empty file beside them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs"
        self._quarantine = root / "quarantine"
        for directory in (self._blobs, self._quarantine):
            directory.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return the path at which the bytes lie if they exist."""
        return self._blobs / sha256[:2] / sha256

    def put(self, path: Path, sha256: str) -> None:
        """Rename a synced file of the same file system to its place and fsync the directory."""
        place = self.path(sha256)
        try:
            place.parent.mkdir()
            _sync_directory(self._blobs)
        except FileExistsError:
            pass
        os.replace(path, place)
        _sync_directory(place.parent)

    def open(self, sha256: str) -> BinaryIO:
        """Open the file itself. The descriptor stays readable after the file's name is removed."""
        try:
            return open(self.path(sha256), "rb")
        except FileNotFoundError as error:
            raise ArtifactNotFound(sha256) from error

    def exists(self, sha256: str) -> bool:
        """True if the file exists."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Size of the file."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError as error:
            raise ArtifactNotFound(sha256) from error

    def delete(self, sha256: str) -> bool:
        """Remove the file and its quarantine mark; return whether there was a file."""
        self.discharge(sha256)
        try:
            self.path(sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[str]:
        """Return the digests of all files."""
        return (path.name for path in self._blobs.glob("??/*") if is_digest(path.name))

    def quarantine(self, sha256: str) -> None:
        """Write an empty file. Its modification time is the beginning of the quarantine."""
        with suppress(FileExistsError):
            (self._quarantine / sha256).touch(exist_ok=False)

    def discharge(self, sha256: str) -> None:
        """Remove the quarantine mark."""
        (self._quarantine / sha256).unlink(missing_ok=True)

    def quarantined(self) -> Iterator[tuple[str, float]]:
        """Yield the digests in quarantine, each with its seconds since it was marked."""
        for path in self._quarantine.iterdir():
            with suppress(FileNotFoundError):
                yield path.name, time.time() - path.stat().st_mtime

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Hold the shared lock of this host, which excludes `removing` in all processes."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def removing(self, sha256: str) -> Iterator[None]:
        """Hold the lock of this host exclusively."""
        with self._locked(fcntl.LOCK_EX):
            yield

    def check(self) -> None:
        """Check that the directory can be written."""
        if not os.access(self._blobs, os.W_OK):
            raise StorageUnavailable("the artifact store cannot be written")

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        with open(self._root / ".lock", "ab") as file:
            fcntl.flock(file, kind)
            yield


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
