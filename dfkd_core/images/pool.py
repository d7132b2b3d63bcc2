"""Pool: the images of the last rounds, from which student batches are drawn."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch, LabelledImages
from dfkd_core.images.reservoir import PixelCodec

ENCODED_AT_A_TIME = 64  # images; so that replays of large images are never decoded all at once


class Pool:
    """Keeps one batch a round, newest last. Images that 8 bits hold exactly, such as replayed ones, are kept in 8."""

    def __init__(self, rounds: int, codec: PixelCodec, *, device: torch.device) -> None:
        self._most = rounds
        self._codec = codec
        self._device = device
        self._kept: list[Batch] = []  # the images of each are floats, or bytes of the codec

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._kept)

    def add(self, batch: LabelledImages) -> None:
        """Keep a batch, and drop the one of too early a round."""
        del self._kept[: max(0, len(self._kept) + 1 - self._most)]
        self._kept.append(Batch(self._encoded(batch), batch.teacher_logits))

    def _encoded(self, batch: LabelledImages) -> Tensor:
        """Return the images as bytes of the codec if those hold all of them exactly, otherwise as floats.

        Only a part of a large batch is decoded at a time.
        """
        if self._device.type != "cpu":
            return batch.images
        kept: Tensor | None = None
        for start, images in zip(itertools.count(step=ENCODED_AT_A_TIME), batch.split(ENCODED_AT_A_TIME), strict=False):
            stored = self._codec.encode(images)
            if not torch.equal(self._codec.decode(stored), images):
                return batch.images
            if len(stored) == len(batch):
                return stored
            kept = torch.empty((len(batch), *stored.shape[1:]), dtype=stored.dtype) if kept is None else kept
            kept[start : start + len(stored)] = stored
        return batch.images if kept is None else kept

    def _decoded(self, batch: Batch) -> Batch:
        exact = batch.images.is_floating_point()
        return batch if exact else Batch(self._codec.decode(batch.images), batch.teacher_logits)

    @property
    def newest(self) -> Batch:
        """The batch that was added last."""
        return self._decoded(self._kept[-1])

    @property
    def newest_classes(self) -> Tensor:
        """The classes that the teacher sees in the batch that was added last: (N,)."""
        return self._kept[-1].teacher_logits.argmax(dim=1)

    def sample(self, count: int, *, generator: torch.Generator) -> Batch:
        """Draw `count` images of all rounds, with replacement."""
        drawn = torch.randint(len(self), (count,), generator=generator).to(self._device)
        if len(self._kept) == 1:
            return self._decoded(self._kept[0][drawn])
        first = self._kept[0]
        images = torch.empty((count, *first.images.shape[1:]), device=self._device)
        logits = torch.empty((count, first.teacher_logits.shape[1]), device=self._device)
        start = 0
        for batch in self._kept:
            places = ((drawn >= start) & (drawn < start + len(batch))).nonzero().flatten()
            found = self._decoded(batch[drawn[places] - start])
            images[places], logits[places] = found.images, found.teacher_logits
            start += len(batch)
        return Batch(images, logits)

    def state(self) -> list[list[Tensor]]:
        """Return images and logits of each round."""
        return [[batch.images, batch.teacher_logits] for batch in self._kept]

    def restore(self, state: Sequence[Sequence[Tensor]]) -> None:
        """Continue from the `state` of an earlier pool."""
        self._kept = [Batch(images.to(self._device), logits.to(self._device)) for images, logits in state]
