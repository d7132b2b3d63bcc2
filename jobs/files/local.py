"""Blobs below a directory of this host.

A file appears under its name whole or not at all: it was written to a temporary name in the same file system and
fsynced; it is renamed, and its directory fsynced. The same bytes twice are the same file.
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
    """Blobs in files, spread over 256 directories; quarantine is an empty file beside them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs"
        self._quarantine = root / "quarantine"
        for directory in (self._blobs, self._quarantine):
            directory.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the bytes are, if they are."""
        return self._blobs / sha256[:2] / sha256

    def put(self, path: Path, sha256: str) -> None:
        """Rename a synced file of the same file system to its place, for good."""
        place = self.path(sha256)
        try:
            place.parent.mkdir()
            _sync_directory(self._blobs)
        except FileExistsError:
            pass
        os.replace(path, place)
        _sync_directory(place.parent)

    def open(self, sha256: str) -> BinaryIO:
        """The file itself; the descriptor stays good when its name is gone."""
        try:
            return open(self.path(sha256), "rb")
        except FileNotFoundError as error:
            raise ArtifactNotFound(sha256) from error

    def exists(self, sha256: str) -> bool:
        """Whether there is such a file."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Size of the file."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError as error:
            raise ArtifactNotFound(sha256) from error

    def delete(self, sha256: str) -> bool:
        """Remove the file and its quarantine; whether there was one."""
        self.discharge(sha256)
        try:
            self.path(sha256).unlink()
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[str]:
        """All there are."""
        return (path.name for path in self._blobs.glob("??/*") if is_digest(path.name))

    def quarantine(self, sha256: str) -> None:
        """An empty file, whose time of writing says since when."""
        with suppress(FileExistsError):
            (self._quarantine / sha256).touch(exist_ok=False)

    def discharge(self, sha256: str) -> None:
        """Remove that file."""
        (self._quarantine / sha256).unlink(missing_ok=True)

    def quarantined(self) -> Iterator[tuple[str, float]]:
        """Digests and seconds."""
        for path in self._quarantine.iterdir():
            with suppress(FileNotFoundError):
                yield path.name, time.time() - path.stat().st_mtime

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """A lock that all processes of this host share, and that excludes `removing`."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def removing(self, sha256: str) -> Iterator[None]:
        """The same lock, alone."""
        with self._locked(fcntl.LOCK_EX):
            yield

    def check(self) -> None:
        """The directory can be written."""
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
