"""The interface between the artifact store and the place of its bytes: a directory of this host, or a bucket.

Callers pass only valid digests: sixty-four hexadecimal digits.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol


class Blobs(Protocol):
    """Keeps bytes under their sha256, always whole. It does not verify them and does not know which rows refer to them.

    Every method may raise StorageUnavailable if the object store does not answer.
    """

    def put(self, path: Path, sha256: str) -> None:
        """Keep the file at `path` durably. The caller has fsynced the file; this method may move it away.

        Raises:
            StorageFull: the disk is full.
        """

    def open(self, sha256: str) -> BinaryIO:
        """Open the bytes for reading and seeking. The open file stays readable after a deletion.

        Raises:
            ArtifactNotFound: there are no bytes under this digest.
        """

    def exists(self, sha256: str) -> bool:
        """True if there are bytes under this digest."""

    def size(self, sha256: str) -> int:
        """Number of bytes under this digest.

        Raises:
            ArtifactNotFound: there are no bytes under this digest.
        """

    def delete(self, sha256: str) -> bool:
        """Remove the bytes and their quarantine mark; return whether there were any bytes."""

    def digests(self) -> Iterator[str]:
        """Return the digests of all bytes."""

    def quarantine(self, sha256: str) -> None:
        """Mark bytes to which no row refers, with the current time. The bytes stay where they are."""

    def discharge(self, sha256: str) -> None:
        """Remove the quarantine mark."""

    def quarantined(self) -> Iterator[tuple[str, float]]:
        """Return the digests in quarantine, each with its seconds since it was marked."""

    def keeping(self) -> AbstractContextManager[None]:
        """Inside the block no process removes bytes that this thread puts; they still exist when the block ends."""

    def removing(self, sha256: str) -> AbstractContextManager[None]:
        """Inside the block no thread and no process is `keeping` these bytes."""

    def check(self) -> None:
        """Check that bytes can be written.

        Raises:
            StorageFull: the disk is full.
        """
