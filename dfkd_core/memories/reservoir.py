"""Reservoir memory: a uniform, class-balanced sample of everything ever synthesized, with the teacher's logits.

Stands in for the bank of MB-DFKD (Binici et al., WACV 2022, arXiv 2108.05698) without its sliding window: no mode is
forgotten because it is old.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.images.reservoir import ClassReservoir, PixelCodec
from dfkd_core.memories.memory import Memory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.notice import Notice
from dfkd_core.options.memories.priority import PriorityOptions
from dfkd_core.options.memories.reservoir import ReservoirOptions
from dfkd_core.rng import Streams

LEAST_AGREEMENT = 0.99  # of the teacher with itself after 8-bit storage; below that, 16-bit floats are kept
CHECK_AFTER = 1000  # images


class ReservoirMemory(Memory):
    """Images in 8 bits between the valid bounds of each channel, logits in 16-bit floats."""

    def __init__(
        self, options: ReservoirOptions | PriorityOptions, teacher: Teacher, *, streams: Streams, device: torch.device
    ) -> None:
        self._options = options
        self._teacher = teacher
        self._device = device
        self._lots = streams["reservoir-lots"]
        self._checked = 0
        self._kept = 0  # of those checked, how many keep their class when stored in 8 bits
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
        """Synthetic images are fragile: where 8 bits change too many classes, start over with 16-bit floats."""
        codec = self._bank.codec
        stored = codec.decode(codec.encode(fresh.images.cpu())).to(self._device)
        same = self._teacher.label(stored).argmax(dim=1) == fresh.teacher_logits.argmax(dim=1)
        self._checked += len(fresh)
        self._kept += int(same.sum())
        if self._checked >= CHECK_AFTER and self._kept < LEAST_AGREEMENT * self._checked:
            self._exact = True
            self._bank = self._empty_bank(torch.float16)

    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """A uniform draw from the bank; the logits are those of the first labelling."""
        if not len(self._bank):
            return None
        batch = self._bank.sample(count, generator=generator)
        return Batch(images=batch.images.to(self._device), teacher_logits=batch.teacher_logits.to(self._device))

    @property
    def num_bytes(self) -> int:
        """Bytes of bank and logits."""
        return self._bank.num_bytes

    @property
    def warnings(self) -> list[Notice]:
        """Tells when 8 bits did not suffice."""
        if not self._exact:
            return []
        detail = f"8-bit storage kept only {self._kept} of {self._checked} classes; the reservoir holds 16-bit floats"
        return [Notice(code="reservoir-not-8-bit", detail=detail, hint="state teacher.input.mean, std and range")]

    def state(self) -> dict[str, Any]:
        """The bank and the storage check."""
        check = {"checked": self._checked, "kept": self._kept, "exact": self._exact}
        return {"bank": self._bank.state(), **check}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue an earlier reservoir."""
        self._checked, self._kept, self._exact = state["checked"], state["kept"], state["exact"]
        self._bank = self._empty_bank(torch.float16 if self._exact else torch.uint8)
        self._bank.restore(state["bank"])
