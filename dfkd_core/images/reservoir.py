"""ClassReservoir: a uniform sample of a stream of labelled images with an equal quota for every class of the teacher.

Images are kept in 8 bits between per-channel bounds, or in 16-bit floats if 8 bits would change their labels. The
teacher's logits are kept in 16-bit floats.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.images.image_rows import ImageRows

LEVELS = 255


@dataclass(frozen=True, slots=True)
class PixelCodec:
    """Encodes images (N, C, H, W) as bytes and decodes them, affine per channel.

    Values outside [low, high] are clipped. With a floating-point `dtype` the images are only cast.
    """

    low: Tensor  # (1, C, 1, 1)
    high: Tensor  # (1, C, 1, 1)
    dtype: torch.dtype = torch.uint8

    def encode(self, images: Tensor) -> Tensor:
        if self.dtype != torch.uint8:
            return images.to(self.dtype)
        return ((images - self.low) / (self.high - self.low) * LEVELS).round().clamp(0, LEVELS).to(torch.uint8)

    def decode(self, stored: Tensor) -> Tensor:
        if self.dtype != torch.uint8:
            return stored.float()
        return self.low + stored.float() * ((self.high - self.low) / LEVELS)


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Images in places of a bank, with the teacher's logits; they are decoded when they are asked for.

    The bank must not change before that.
    """

    rows: ImageRows
    places: Tensor  # (N,), of the images in `rows`
    codec: PixelCodec
    teacher_logits: Tensor  # (N, num_classes), on `device`
    device: torch.device

    def __len__(self) -> int:
        return len(self.places)

    @property
    def images(self) -> Tensor:
        """All images (N, C, H, W), float, on the device."""
        return self._decoded(self.places)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in order, at most `size` at a time; no more than those are in memory."""
        for places in torch.split(self.places, size):
            yield self._decoded(places)

    def _decoded(self, places: Tensor) -> Tensor:
        return self.codec.decode(self.rows[places]).to(self.device)


class ClassReservoir:
    """Keeps each of n offered images of one class with equal probability quota / n (Vitter's algorithm R).

    If the capacity is smaller than the number of classes, classes share places.
    """

    def __init__(self, capacity: int, *, num_classes: int, shape: tuple[int, int, int], codec: PixelCodec) -> None:
        strata = min(num_classes, capacity)
        self.quota = capacity // strata
        self.codec = codec
        self._images = ImageRows(strata * self.quota, shape, codec.dtype)
        self._logits = torch.zeros((strata * self.quota, num_classes), dtype=torch.float16)
        self._seen = torch.zeros(strata, dtype=torch.int64)

    def __len__(self) -> int:
        return int(self._seen.clamp(max=self.quota).sum())

    @property
    def capacity(self) -> int:
        """The number of images that are kept when every class has its share."""
        return len(self._seen) * self.quota

    @property
    def num_bytes(self) -> int:
        """Bytes of the storage for all images and logits, filled or not."""
        return self._images.num_bytes + self._logits.numel() * self._logits.element_size()

    @property
    def room(self) -> Tensor:
        """The free places of each stratum: (min(classes, capacity),)."""
        return (self.quota - self._seen).clamp(min=0)

    def add(self, batch: Batch, *, generator: torch.Generator) -> None:
        """Show a batch to the reservoir; random draws decide which images it keeps."""
        lots = torch.rand(len(batch), generator=generator, dtype=torch.float64).tolist()
        strata = (batch.teacher_logits.argmax(dim=1) % len(self._seen)).tolist()
        seen = self._seen.tolist()
        chosen: dict[int, int] = {}  # slot to index; a later image may replace an earlier image of the same batch
        for index, (stratum, lot) in enumerate(zip(strata, lots, strict=True)):
            place = seen[stratum] if seen[stratum] < self.quota else int(lot * (seen[stratum] + 1))
            seen[stratum] += 1
            if place < self.quota:
                chosen[stratum * self.quota + place] = index
        self._seen = torch.tensor(seen, dtype=torch.int64)
        self._keep(batch, chosen)

    def _keep(self, batch: Batch, chosen: dict[int, int]) -> None:
        if not chosen:
            return
        slots, indices = torch.tensor(list(chosen)), torch.tensor(list(chosen.values()))
        self._images[slots] = self.codec.encode(batch.images.cpu()[indices])
        self._logits[slots] = batch.teacher_logits.cpu()[indices].half()

    def _filled_slots(self) -> Tensor:
        place = torch.arange(self.quota).repeat(len(self._seen))
        return (place < self._seen.clamp(max=self.quota).repeat_interleave(self.quota)).nonzero().flatten()

    def sample(self, count: int, *, generator: torch.Generator) -> Batch:
        """Draw `count` of the kept images uniformly, with replacement."""
        return self._at(self._drawn_slots(count, generator))

    def sample_stored(self, count: int, *, generator: torch.Generator, device: torch.device) -> StoredBatch:
        """Draw the images that `sample` would draw. They are decoded when they are asked for."""
        return self._stored_at(self._drawn_slots(count, generator), device)

    def all(self) -> Batch:
        """Return all kept images, class after class."""
        return self._at(self._filled_slots())

    def take(self, numbers: Tensor) -> Batch:
        """Return some of the images of `all`, by their numbers there."""
        return self._at(self._filled_slots()[numbers])

    def take_stored(self, numbers: Tensor, *, device: torch.device) -> StoredBatch:
        """Return the images that `take` would return. They are decoded when they are asked for."""
        return self._stored_at(self._filled_slots()[numbers], device)

    @property
    def teacher_logits(self) -> Tensor:
        """The logits of all kept images, class after class."""
        return self._logits[self._filled_slots()].float()

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the kept images in the same order, at most `size` at a time; no more than those are in memory."""
        for slots in torch.split(self._filled_slots(), size):
            yield self.codec.decode(self._images[slots])

    def _drawn_slots(self, count: int, generator: torch.Generator) -> Tensor:
        filled = self._filled_slots()
        return filled[torch.randint(len(filled), (count,), generator=generator)]

    def _stored_at(self, slots: Tensor, device: torch.device) -> StoredBatch:
        return StoredBatch(self._images, slots, self.codec, self._logits[slots].float().to(device), device)

    def _at(self, slots: Tensor) -> Batch:
        return Batch(images=self.codec.decode(self._images[slots]), teacher_logits=self._logits[slots].float())

    def state(self) -> dict[str, Any]:
        """Return the kept images with their logits, class after class, and the number of images seen in each class."""
        slots = self._filled_slots()
        return {"images": self._images.state(slots), "logits": self._logits[slots], "seen": self._seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the content of an earlier reservoir with the same capacity, classes and shape."""
        self._seen = state["seen"].clone()
        slots = self._filled_slots()
        self._images.restore(slots, state["images"])
        self._logits[slots] = state["logits"]
