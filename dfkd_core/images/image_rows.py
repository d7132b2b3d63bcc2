"""ImageRows: equally large images in numbered places, in memory while they are small together, otherwise in a file.

A bank of photographs-sized images would fill the memory that activations need. The file is nameless, lies in the job's
own temporary directory and vanishes with the process. It is read and written place by place, not mapped, so that it
does not count as the process's memory.
"""

import hashlib
import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_core.planning.sizes import IN_MEMORY_BYTES

PART_BYTES = 16 * 2**20  # what is read from the file at a time


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Images that a checkpoint does not hold, because they can be drawn again; `sha256` is that of their bytes."""

    sha256: str


class ImageRows:
    """Images (count, C, H, W) of one type, all zero at first; `rows[places]` reads and writes them."""

    def __init__(
        self, count: int, shape: tuple[int, ...], dtype: torch.dtype, *, in_memory_bytes: int = IN_MEMORY_BYTES
    ) -> None:
        self.shape = (count, *shape)
        self.dtype = dtype
        self._row_bytes = math.prod(shape) * dtype.itemsize
        self._tensor: Tensor | None = None
        if count * self._row_bytes <= in_memory_bytes:
            self._tensor = torch.zeros(self.shape, dtype=dtype)
        else:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the object
            weakref.finalize(self, self._file.close)
            os.truncate(self._file.fileno(), count * self._row_bytes)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def num_bytes(self) -> int:
        """Bytes of all places, filled or not."""
        return len(self) * self._row_bytes

    def __getitem__(self, places: Tensor) -> Tensor:
        """Return the images at `places` (N,) as a new tensor (N, C, H, W)."""
        if self._tensor is not None:
            return self._tensor[places]
        images = torch.empty((len(places), *self.shape[1:]), dtype=self.dtype)
        for image, place in zip(_bytes_of(images), places.tolist(), strict=True):
            os.preadv(self._file.fileno(), [image], place * self._row_bytes)
        return images

    def __setitem__(self, places: Tensor, images: Tensor) -> None:
        """Put images (N, C, H, W) at `places` (N,)."""
        if self._tensor is not None:
            self._tensor[places] = images
            return
        for image, place in zip(_bytes_of(images.contiguous()), places.tolist(), strict=True):
            os.pwritev(self._file.fileno(), [image], place * self._row_bytes)

    def state(self, places: Tensor) -> "Tensor | Selection":
        """Return the images at `places` (N,) for a checkpoint; those in a file are read when they are written."""
        return self[places] if self._tensor is not None else Selection(self, places)

    def left_out(self, places: Tensor) -> LeftOut:
        """Return what a checkpoint holds instead of the images at `places` (N,)."""
        digest = hashlib.sha256()
        for some in self._split(places):
            for image in _bytes_of(self[some]):
                digest.update(image)
        return LeftOut(digest.hexdigest())

    def restore(self, places: Tensor, images: Tensor) -> None:
        """Put the images of an earlier `state` at `places` (N,)."""
        for some, part in zip(self._split(places), self._split(images), strict=True):
            self[some] = part

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, max(1, PART_BYTES // self._row_bytes))


class Selection:
    """Some images of a file, which stay there until they are asked for."""

    def __init__(self, rows: ImageRows, places: Tensor) -> None:
        self.dtype, self.shape = rows.dtype, (len(places), *rows.shape[1:])
        self._rows, self._places = rows, places

    def parts(self) -> Iterator[Tensor]:
        """Yield the images in order, a few at a time."""
        for places in self._rows._split(self._places):
            yield self._rows[places]

    def __deepcopy__(self, memo: dict[int, object]) -> Tensor:
        """Return the images as they are now."""
        return self._rows[self._places]


def _bytes_of(images: Tensor) -> list[memoryview]:
    """Return a view of the bytes of each image."""
    if not len(images):
        return []
    return [image.data for image in images.view(torch.uint8).view(len(images), -1).numpy()]
