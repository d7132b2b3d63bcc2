"""AveragedStudent: an exponential moving average of the student's weights, the student that is worth publishing."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class AveragedStudent:
    """`network` holds the average; its decay is smaller in the first updates, so that it does not lag behind (bias)."""

    def __init__(self, student: nn.Module, *, decay: float) -> None:
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the average towards the student; buffers are taken over."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), 1 - decay)
        for average, current in zip(self.network.buffers(), student.buffers(), strict=True):
            average.copy_(current)

    def state(self) -> dict[str, Any]:
        """Weights and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self._updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue an earlier average."""
        self.network.load_state_dict(state["network"])
        self._updates = state["updates"]
