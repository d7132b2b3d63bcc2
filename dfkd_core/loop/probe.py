"""Probe: held-out synthetic images on which students are compared. Only the probe decides which student is the best.

No student trains on a held-out image. The probe is a class-balanced reservoir over the whole history of the run plus
the newest held-out images. The audit set is a second probe with its own draws; it decides nothing.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch, Labelled
from dfkd_core.images.image_rows import ImageRows
from dfkd_core.images.reservoir import ClassReservoir, PixelCodec
from dfkd_core.planning.rounds import RECENT_SHARE

NONE_GAINED = 0.5  # expected images of a lot for which there is a place, below which it is taken for the last lot


class Probe:
    """Keeps at most `size` held-out images: three quarters from the whole history, and one quarter of the newest."""

    def __init__(self, size: int, *, num_classes: int, shape: tuple[int, int, int], codec: PixelCodec) -> None:
        self._size, self._recent_size = size, size // RECENT_SHARE
        self._history = ClassReservoir(size - self._recent_size, num_classes=num_classes, shape=shape, codec=codec)
        self._codec = codec
        self._newest = ImageRows(self._recent_size, shape, codec.dtype)
        self._places = torch.zeros(0, dtype=torch.int64)  # of the newest images in those rows, oldest first
        self._newest_logits = torch.zeros((0, num_classes), dtype=torch.float16)

    def __len__(self) -> int:
        return len(self._history) + len(self._places)

    def observe(self, held_out: Batch, *, generator: torch.Generator) -> None:
        """Show held-out images to the probe. Images that are no longer among the newest are offered to the history."""
        images = self._codec.encode(held_out.images.cpu())
        logits = torch.cat([self._newest_logits, held_out.teacher_logits.cpu().half()])
        aged = max(0, len(logits) - self._recent_size)
        if aged:
            leaving, passing = self._places[:aged], max(0, aged - len(self._places))
            old = torch.cat([self._newest[leaving], images[:passing]])
            self._history.add(Batch(self._codec.decode(old), logits[:aged].float()), generator=generator)
            self._places, images = self._places[aged:], images[passing:]
        free = torch.ones(self._recent_size, dtype=torch.bool)
        free[self._places] = False
        entering = free.nonzero().flatten()[: len(images)]
        self._newest[entering] = images
        self._places, self._newest_logits = torch.cat([self._places, entering]), logits[aged:].clone()

    @property
    def capacity(self) -> int:
        """The number of images that a full probe has."""
        return self._recent_size + self._history.capacity

    def images_to_reach(self, size: int, classes: Tensor, *, lot: int | None) -> int:
        """Return about how many images it takes until the probe has `size` images, or no image finds a place any more.

        They are made in lots of this size or, if it is None, of as many as are missing. `classes` (N,) are those of
        images of the same source: the rarer a class is among them, the more images it takes to fill its places.
        """
        room = self._history.room.double()
        shares = torch.bincount(classes % len(room), minlength=len(room)).double() / max(1, len(classes))
        recent, missing, made = float(self._recent_size - len(self._places)), float(size - len(self)), 0
        while missing >= 1:
            offered = min(lot or self._size, math.ceil(missing))
            gained = min(recent, offered)
            kept = torch.minimum(room, (offered - gained) * shares)
            recent, room, gained = recent - gained, room - kept, gained + float(kept.sum())
            made += lot or offered
            if gained < NONE_GAINED:
                break
            missing -= gained
        return made

    def batch(self) -> Batch:
        """Return the images of the probe with their logits, on the CPU."""
        newest = Batch(
            images=self._codec.decode(self._newest[self._places]), teacher_logits=self._newest_logits.float()
        )
        return Batch.join(self._history.all(), newest)

    def take(self, numbers: Tensor) -> Tensor:
        """Return some of the images of `batch`, by their numbers (N,) there: (N, C, H, W)."""
        kept, past = len(self._history), numbers < len(self._history)
        images = torch.empty((len(numbers), *self._newest.shape[1:]))
        images[past] = self._history.take(numbers[past]).images
        images[~past] = self._codec.decode(self._newest[self._places[numbers[~past] - kept]])
        return images

    @property
    def teacher_logits(self) -> Tensor:
        """The logits of all images, in the order of `batch`."""
        return torch.cat([self._history.teacher_logits, self._newest_logits.float()])

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in the order of `batch`, at most `size` at a time; no more than those are in memory."""
        kept = len(self._history)
        for start in range(0, len(self), size):
            numbers = torch.arange(kept)[start : start + size]
            parts = [self._history.take(numbers).images] if len(numbers) else []
            if start + size > kept:
                places = self._places[max(0, start - kept) : start + size - kept]
                parts.append(self._codec.decode(self._newest[places]))
            yield torch.cat(parts)

    def state(self) -> dict[str, Any]:
        """Return the history and the newest images."""
        newest = {"images": self._newest.state(self._places), "logits": self._newest_logits}
        return {"history": self._history.state(), "recent": newest}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the `state` of an earlier probe with the same size, classes and shape."""
        self._history.restore(state["history"])
        images, logits = state["recent"]["images"], state["recent"]["logits"]
        self._places, self._newest_logits = torch.arange(len(logits)), logits.clone()
        self._newest.restore(self._places, images)


def agrees(student_logits: Tensor, batch: Labelled) -> Tensor:
    """Return for each image whether the student's class is the teacher's: bool (N,)."""
    return student_logits.argmax(dim=1) == batch.teacher_logits.argmax(dim=1)


def overlap(student_logits: Tensor, batch: Labelled) -> Tensor:
    """Return for each image the sum over classes of the minimum of the two softmaxes: (N,) in [0, 1].

    The overlap is an agreement weighed by certainty. On images of which both networks are unsure, it is far less noisy
    than `agrees`.
    """
    return torch.minimum(student_logits.softmax(dim=1), batch.teacher_logits.softmax(dim=1)).sum(dim=1)
