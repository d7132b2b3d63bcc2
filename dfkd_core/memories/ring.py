"""Ring memory: keeps the newest batches; a new batch replaces the oldest. Binici, Pham, Mitra, Leman: Preventing
Catastrophic Forgetting and Distribution Mismatch in Knowledge Distillation via Synthetic Data, WACV 2022,
https://arxiv.org/abs/2108.05698.

This is MB-DFKD's memory bank as implemented in the code of LRA (Patel, Mopuri, Qiu, CVPR 2023). The bank is a sliding
window: it forgets all batches older than its slots. The memory `reservoir` does not forget by age.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch, LabelledImages
from dfkd_core.images.image_rows import ImageRows
from dfkd_core.images.reservoir import PixelCodec, StoredBatch
from dfkd_core.memories.memory import Memory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.memories.ring import RingOptions
from dfkd_core.rng import Streams

DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}


class RingMemory(Memory):
    """Keeps slots of images with the teacher's logits; slots are filled in order and then overwritten in order."""

    def __init__(self, options: RingOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._device = device
        space = teacher.input_space
        self._codec = PixelCodec(*space.bounds(), DTYPES[options.storage])
        room = (options.slots, options.slot_images)
        self._images = ImageRows(math.prod(room), space.shape, self._codec.dtype)
        self._logits = torch.zeros((*room, teacher.num_classes))
        self._filled = torch.zeros(options.slots, dtype=torch.int64)  # the number of images in each slot
        self._rounds = 0
        self._pushes = 0

    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Store the first images of this round if a push is due."""
        self._rounds += 1
        since_first = self._rounds - self._options.first_push_rounds
        if since_first >= 0 and since_first % self._options.push_rounds == 0:
            self._push(fresh)
        return {}

    def _push(self, fresh: Batch) -> None:
        slot = self._pushes % self._options.slots
        kept = min(len(fresh), self._options.slot_images)
        self._images[slot * self._options.slot_images + torch.arange(kept)] = self._codec.encode(
            fresh.images[:kept].cpu()
        )
        self._logits[slot, :kept] = fresh.teacher_logits[:kept].cpu()
        self._filled[slot] = kept
        self._pushes += 1

    def replay(self, count: int, *, generator: torch.Generator) -> LabelledImages | None:
        """Draw `count` images from the slots, with replacement; return None while the ring is empty."""
        if not self._pushes:
            return None
        slots, places = self._drawn(count, generator)
        logits = self._logits[slots, places].to(self._device)
        numbers = slots * self._options.slot_images + places
        return StoredBatch(self._images, numbers, self._codec, logits, self._device)

    def _kept(self) -> Tensor:
        """Return the numbers of all places that hold an image."""
        return (torch.arange(self._options.slot_images) < self._filled.unsqueeze(1)).flatten().nonzero().flatten()

    def _drawn(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the slot and the place of each image, (count,) both."""
        if self._options.draw == "image":
            flat = torch.randint(int(self._filled.sum()), (count,), generator=generator)
            return self._placed(flat)
        slots, places = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        while len(slots) < count:
            slot = int(torch.randint(min(self._pushes, self._options.slots), (), generator=generator))
            held = int(self._filled[slot])
            slots = torch.cat([slots, torch.full((held,), slot)])
            places = torch.cat([places, torch.arange(held)])
        return slots[:count], places[:count]

    def _placed(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Return slot and place, (count,) both, of images that are numbered through all slots, (count,)."""
        ends = self._filled.cumsum(0)
        slots = torch.searchsorted(ends, flat, right=True)
        return slots, flat - (ends - self._filled)[slots]

    @property
    def num_bytes(self) -> int:
        """Bytes of the storage for all images and logits, filled or not."""
        return self._images.num_bytes + self._logits.numel() * self._logits.element_size()

    def state(self) -> dict[str, Any]:
        """Return the ring's content and its counters."""
        kept = self._kept()
        images, logits = self._images.state(kept), self._logits.flatten(0, 1)[kept]
        content = {"images": images, "logits": logits, "filled": self._filled}
        return {**content, "rounds": self._rounds, "pushes": self._pushes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier ring."""
        self._filled = state["filled"].clone()
        kept = self._kept()
        self._images.restore(kept, state["images"])
        self._logits.flatten(0, 1)[kept] = state["logits"]
        self._rounds, self._pushes = state["rounds"], state["pushes"]
