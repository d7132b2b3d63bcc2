"""No memory: the student sees fresh images only. What replay is measured against."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.memories.memory import Memory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.memories.none import NoMemoryOptions
from dfkd_core.rng import Streams


class NoMemory(Memory):
    """Keeps nothing."""

    num_bytes = 0

    def __init__(self, options: NoMemoryOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        """Takes what every memory takes, and needs none of it."""

    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """Nothing."""
        return None

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing."""
