"""Memory: keeps earlier images, or a model of them, and replays them. Its main verbs are `remember` and `replay`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch, LabelledImages
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.notice import Notice


class Memory(ABC):
    """Keeps the images that a method made earlier, or a model of these images."""

    def on_generator_update(self, synthesizer: Synthesizer) -> None:  # noqa: B027  # most memories have no use for it
        """React to a synthesizer; called at its start, after each of its updates and after each restart."""

    @abstractmethod
    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Take in a round's fresh images and return detached losses by name; the dict is empty if nothing is learnt."""

    def observe_student(self, student: nn.Module) -> None:
        """React to the current student; called before a replay. The student must not be changed."""
        return

    @abstractmethod
    def replay(self, count: int, *, generator: torch.Generator) -> LabelledImages | None:
        """Return `count` remembered images with the teacher's logits, or None if the memory cannot replay yet.

        Images that are stored may be read only when they are asked for, so ask before the memory takes in more.
        """

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Bytes of the tensors that a replay needs."""

    @property
    def warnings(self) -> list[Notice]:
        """Warnings for the user about this run of the memory."""
        return []

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as a tree of dicts, lists, numbers and tensors."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier memory."""
