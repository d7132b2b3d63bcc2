"""What an artifact store needs of the place that keeps its bytes: a directory of this host, or a bucket.

Every digest that comes in here is one: sixty-four hexadecimal digits.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol


class Blobs(Protocol):
    """Bytes under their sha256, whole or not at all. Nothing here knows who needs them, and nothing is verified."""

    def put(self, path: Path, sha256: str) -> None:
        """Keep the synced file at `path`, for good. It may be moved away. StorageFull, StorageUnavailable."""

    def open(self, sha256: str) -> BinaryIO:
        """A file to read and seek in, which outlives the deletion. ArtifactNotFound, StorageUnavailable."""

    def exists(self, sha256: str) -> bool:
        """Whether there are bytes under this digest."""

    def size(self, sha256: str) -> int:
        """Number of bytes; ArtifactNotFound, StorageUnavailable."""

    def delete(self, sha256: str) -> bool:
        """Remove bytes, and their quarantine; whether there were any."""

    def digests(self) -> Iterator[str]:
        """All there are."""

    def quarantine(self, sha256: str) -> None:
        """Note that nothing seems to need these bytes, from now on. They stay where they are."""

    def discharge(self, sha256: str) -> None:
        """Take that back."""

    def quarantined(self) -> Iterator[tuple[str, float]]:
        """Digests and for how many seconds each has been in quarantine."""

    def keeping(self) -> AbstractContextManager[None]:
        """While inside, what this thread puts is not being removed, and what it puts is there when this ends."""

    def removing(self, sha256: str) -> AbstractContextManager[None]:
        """While inside, nobody is `keeping` these bytes."""

    def check(self) -> None:
        """Return when something could be written; StorageUnavailable, StorageFull otherwise."""
