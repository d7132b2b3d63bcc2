"""Part: a piece of a method that optimises images, with what it keeps from batch to batch."""

from abc import ABC
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dfkd_core.methods.parts.image_parameters import Group


class Part(ABC):  # noqa: B024  # every verb has a default: most parts need one or two of them
    """A part of a method; by default it keeps nothing and does nothing. Parts of a method use different state keys."""

    @property
    def groups(self) -> list[Group]:
        """Leaves that are optimised together with the images, by the same loss."""
        return []

    def prepare(self, student: nn.Module | None) -> dict[str, Tensor]:
        """Prepare for a batch and return losses by name; `student` is in eval mode, or None without its feedback."""
        return {}

    def finish(self, images: Tensor, targets: Tensor) -> None:
        """Take in a finished batch: detached images (N, C, H, W) and targets (N, num_classes)."""
        return

    def restart(self) -> None:
        """Forget everything, and draw random weights anew."""
        return

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as a tree of dicts, lists, numbers and tensors."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from an earlier state of the whole method."""
        return
