"""No memory: the student sees fresh images only. Measurements compare the other memories with it."""

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
        """Accept the arguments of every memory and ignore them."""

    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Keep nothing."""
        return {}

    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """Return None; the memory never replays."""
        return None

    def state(self) -> dict[str, Any]:
        """Return an empty dict."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing; there is no state."""
