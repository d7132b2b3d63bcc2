"""Ring memory: the newest batches, the oldest of which gives way. Binici, Pham, Mitra, Leman: Preventing Catastrophic
Forgetting and Distribution Mismatch in Knowledge Distillation via Synthetic Data, WACV 2022,
https://arxiv.org/abs/2108.05698.

MB-DFKD's memory bank as the code of LRA (Patel, Mopuri, Qiu, CVPR 2023) runs it. It is a sliding window: what is older
than its slots is forgotten, which the reservoir mends.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.images.reservoir import PixelCodec
from dfkd_core.memories.memory import Memory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.memories.ring import RingOptions
from dfkd_core.rng import Streams

DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}


class RingMemory(Memory):
    """Slots of images with the teacher's logits, filled one after another and then over again."""

    def __init__(self, options: RingOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._device = device
        space = teacher.input_space
        self._codec = PixelCodec(*space.bounds(), DTYPES[options.storage])
        room = (options.slots, options.slot_images)
        self._images = torch.zeros((*room, *space.shape), dtype=self._codec.dtype)
        self._logits = torch.zeros((*room, teacher.num_classes))
        self._filled = torch.zeros(options.slots, dtype=torch.int64)  # images in each slot
        self._rounds = 0
        self._pushes = 0

    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Keep the first images of this round, when it is time."""
        self._rounds += 1
        since_first = self._rounds - self._options.first_push_rounds
        if since_first >= 0 and since_first % self._options.push_rounds == 0:
            self._push(fresh)
        return {}

    def _push(self, fresh: Batch) -> None:
        slot = self._pushes % self._options.slots
        kept = min(len(fresh), self._options.slot_images)
        self._images[slot, :kept] = self._codec.encode(fresh.images[:kept].cpu())
        self._logits[slot, :kept] = fresh.teacher_logits[:kept].cpu()
        self._filled[slot] = kept
        self._pushes += 1

    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """`count` images of the slots drawn, with replacement; None while the ring is empty."""
        if not self._pushes:
            return None
        slots, places = self._drawn(count, generator)
        images = self._codec.decode(self._images[slots, places])
        return Batch(images=images.to(self._device), teacher_logits=self._logits[slots, places].to(self._device))

    def _drawn(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Slot and place of each image, (count,) both."""
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
        """Where the images with these numbers, counted over all slots, are."""
        ends = self._filled.cumsum(0)
        slots = torch.searchsorted(ends, flat, right=True)
        return slots, flat - (ends - self._filled)[slots]

    @property
    def num_bytes(self) -> int:
        """Bytes of all images and logits that can be kept."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self._images, self._logits))

    def state(self) -> dict[str, Any]:
        """The ring and where it stands."""
        content = {"images": self._images, "logits": self._logits, "filled": self._filled}
        return {**content, "rounds": self._rounds, "pushes": self._pushes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue an earlier ring."""
        self._images.copy_(state["images"])
        self._logits.copy_(state["logits"])
        self._filled = state["filled"].clone()
        self._rounds, self._pushes = state["rounds"], state["pushes"]
