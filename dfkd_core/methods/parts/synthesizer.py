"""Synthesizer: the base class of all methods. Its main verbs are `synthesize` (learn) and `sample` (draw images)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dfkd_core.networks.generators import ConditionalGenerator, Generator
from dfkd_core.networks.teacher import Teacher


class Synthesizer(ABC):
    """A source of images in the teacher's input space."""

    optimises_images: ClassVar[bool] = False
    """True if each image is optimised by itself. Each update, in the warm-up too, then makes `batch_size` images.
    `sample` returns each of these images once. The images are costly, and so none of them is dropped."""

    @property
    def generator(self) -> Generator | ConditionalGenerator | None:
        """The network that makes the images, or None if no network persists from update to update."""
        return None

    @property
    def asked(self) -> Teacher | None:
        """The teacher that the method asks, or None if it asks no other than the one that it was given."""
        return None

    @abstractmethod
    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """Make one update at `rate` times the learning rate, and return detached losses by name.

        If `student` is None, the update uses no feedback. A given student is not changed, mode and buffers included.
        """

    @abstractmethod
    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Return detached images (N, C, H, W) drawn with `generator`.

        N is `count`; it may be smaller if `optimises_images` is True.
        """

    @abstractmethod
    def restart(self) -> None:
        """Forget everything learnt and start again from new random weights."""

    @abstractmethod
    def back_off(self) -> None:
        """Halve the learning rate for the rest of the run; called after a roll-back."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as a tree of dicts, lists, numbers and tensors."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier synthesizer."""
