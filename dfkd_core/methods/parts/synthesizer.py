"""Synthesizer: what every method is. Two verbs: synthesize (learn) and sample (draw images)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dfkd_core.networks.generators import ConditionalGenerator, Generator


class Synthesizer(ABC):
    """A source of images in the teacher's input space."""

    optimises_images: ClassVar[bool] = False
    """Whether every image is optimised by itself. Then an update makes `batch_size` images, which `sample` gives once,
    the warm-up's too: they are costly, and all of them are kept."""

    @property
    def generator(self) -> Generator | ConditionalGenerator | None:
        """The network that makes the images, where one persists from update to update."""
        return None

    @abstractmethod
    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """Learn once, at `rate` times the learning rate; returns detached losses by name.

        No student means: without its feedback. A student given is left as it was, mode and buffers included.
        """

    @abstractmethod
    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Detached images (N, C, H, W) drawn with `generator`; N is `count`, or less where images are optimised."""

    @abstractmethod
    def restart(self) -> None:
        """Forget everything learnt and start anew from other random weights."""

    @abstractmethod
    def back_off(self) -> None:
        """Learn half as fast from now on; called after a roll-back."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as a tree of dicts, lists, numbers and tensors."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier state."""
