"""Reservoir memory: a uniform, class-balanced sample of all images synthesized so far, with the teacher's logits.

The memory replaces the bank of MB-DFKD (Binici et al., WACV 2022, arXiv 2108.05698). It has no sliding window, so that
an image is not forgotten because of its age.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch, LabelledImages
from dfkd_core.images.reservoir import ClassReservoir, PixelCodec
from dfkd_core.memories.memory import Memory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.notice import Notice
from dfkd_core.options.memories.priority import PriorityOptions
from dfkd_core.options.memories.reservoir import CHECK_AFTER, ReservoirOptions
from dfkd_core.rng import Streams

LEAST_AGREEMENT = 0.99  # share of images that keep their class in 8 bits; 16-bit floats are stored below that share


class ReservoirMemory(Memory):
    """Keeps images in 8 bits between the valid bounds of each channel, and logits in 16-bit floats."""

    def __init__(
        self, options: ReservoirOptions | PriorityOptions, teacher: Teacher, *, streams: Streams, device: torch.device
    ) -> None:
        self._options = options
        self._teacher = teacher
        self._device = device
        self._lots = streams["reservoir-lots"]
        self._checked = 0
        self._kept = 0  # number of checked images that keep their class when stored in 8 bits
        self._exact = False
        self._bank = self._empty_bank(torch.uint8)

    def _empty_bank(self, dtype: torch.dtype) -> ClassReservoir:
        space = self._teacher.input_space
        codec = PixelCodec(*space.bounds(), dtype)
        return ClassReservoir(
            self._options.capacity, num_classes=self._teacher.num_classes, shape=space.shape, codec=codec
        )

    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Offer every fresh image to the reservoir."""
        if self._checked < CHECK_AFTER:
            self._check_storage(fresh)
        self._bank.add(fresh, generator=self._lots)
        return {}

    def _check_storage(self, fresh: Batch) -> None:
        """Count the images whose class 8 bits change; if they are too many, start over with 16-bit floats."""
        codec = self._bank.codec
        stored = codec.decode(codec.encode(fresh.images.cpu())).to(self._device)
        same = self._teacher.label(stored).argmax(dim=1) == fresh.teacher_logits.argmax(dim=1)
        self._checked += len(fresh)
        self._kept += int(same.sum())
        if self._checked >= CHECK_AFTER and self._kept < LEAST_AGREEMENT * self._checked:
            self._exact = True
            self._bank = self._empty_bank(torch.float16)

    def replay(self, count: int, *, generator: torch.Generator) -> LabelledImages | None:
        """Draw uniformly from the bank; the logits are those that the teacher gave when the image was stored."""
        if not len(self._bank):
            return None
        return self._bank.sample_stored(count, generator=generator, device=self._device)

    @property
    def num_bytes(self) -> int:
        """Bytes of the bank's images and logits."""
        return self._bank.num_bytes

    @property
    def warnings(self) -> list[Notice]:
        """A warning if 8 bits did not suffice."""
        if not self._exact:
            return []
        detail = f"8-bit storage kept only {self._kept} of {self._checked} classes; the reservoir holds 16-bit floats"
        hint = "Give teacher.input.mean, teacher.input.std and teacher.input.range."
        return [Notice(code="reservoir-not-8-bit", detail=detail, hint=hint)]

    def state(self) -> dict[str, Any]:
        """Return the bank and the counters of the storage check."""
        check = {"checked": self._checked, "kept": self._kept, "exact": self._exact}
        return {"bank": self._bank.state(), **check}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier reservoir."""
        self._checked, self._kept, self._exact = state["checked"], state["kept"], state["exact"]
        self._bank = self._empty_bank(torch.float16 if self._exact else torch.uint8)
        self._bank.restore(state["bank"])
