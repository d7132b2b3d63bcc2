"""Part: a piece of a method that optimises images, with what it keeps from batch to batch."""

from abc import ABC
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dfkd_core.methods.parts.image_parameters import Group


class Part(ABC):  # noqa: B024  # every verb has a default: most parts need one or two of them
    """By default a part keeps nothing and does nothing. The keys of all states of a method are different."""

    @property
    def groups(self) -> list[Group]:
        """Leaves that follow the gradient of the images' loss beside the images themselves."""
        return []

    def prepare(self, student: nn.Module | None) -> dict[str, Tensor]:
        """Called before each batch, with the student in eval mode if its feedback is wanted; returns losses by name."""
        return {}

    def finish(self, images: Tensor, targets: Tensor) -> None:
        """Called with each finished batch: images (N, C, H, W), detached, and targets (N, num_classes)."""
        return

    def restart(self) -> None:
        """Forget everything, and draw random weights anew."""
        return

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as a tree of dicts, lists, numbers and tensors."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier state of the whole method."""
        return
