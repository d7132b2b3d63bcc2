"""Synthesizer: what every method is. Two verbs: synthesize (learn) and sample (draw images)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Synthesizer(ABC):
    """A source of images in the teacher's input space."""

    @abstractmethod
    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """Learn once, at `rate` times the learning rate; returns detached losses by name.

        No student means: without its feedback. A student given is left as it was, mode and buffers included.
        """

    @abstractmethod
    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Detached images (count, C, H, W) drawn with `generator`."""

    @abstractmethod
    def restart(self) -> None:
        """Forget everything learnt and start anew from other random weights."""

    @abstractmethod
    def calm(self) -> None:
        """Learn half as fast from now on; called after a roll-back."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as a tree of dicts, lists, numbers and tensors."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier state."""
