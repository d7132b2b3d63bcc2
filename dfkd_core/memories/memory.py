"""Memory: how the past is kept and replayed. Three verbs: remember, replay, and say how many bytes that takes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.notice import Notice


class Memory(ABC):
    """Everything a method made before, or a model of it."""

    def on_generator_update(self, synthesizer: Synthesizer) -> None:  # noqa: B027  # most memories have no use for it
        """Hear of a synthesizer as it starts, after each of its updates and after each restart."""

    @abstractmethod
    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Take in a round's fresh images; returns detached losses by name, if it learns."""

    def observe_student(self, student: nn.Module) -> None:
        """Hear of the student as it is now, before a replay; the student is left as it was."""
        return

    @abstractmethod
    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """`count` remembered images with the teacher's logits, or None when there is nothing worth replaying yet."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Bytes of the tensors that must be kept to replay."""

    @property
    def warnings(self) -> list[Notice]:
        """What the user should know about this memory's run."""
        return []

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as a tree of dicts, lists, numbers and tensors."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier state."""
