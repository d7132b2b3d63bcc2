"""Teacher: a frozen network with its input space, its number of classes and what it offers to methods."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfkd_core.errors import TeacherMismatch
from dfkd_core.networks.hooks import forward_with_input_of
from dfkd_core.networks.precision import Engine


@dataclass(frozen=True, slots=True)
class InputSpace:
    """The valid images of a teacher: their shape (C, H, W) and the lowest and highest value of each channel."""

    shape: tuple[int, int, int]
    low: tuple[float, ...]  # (C,)
    high: tuple[float, ...]  # (C,)
    range_known: bool  # False if mean and std were not given and the bounds are a guess

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest values, each (1, C, 1, 1), float32 on the CPU."""
        return torch.tensor(self.low).view(1, -1, 1, 1), torch.tensor(self.high).view(1, -1, 1, 1)


class Teacher(nn.Module):
    """A frozen, eval-mode network from images (N, C, H, W) to logits (N, num_classes).

    `classifier` is the last linear module; its input is the penultimate feature. `classifier` is None if the graph has
    no such module; then the teacher does not offer `features`. Parameters never require gradients; gradients do reach
    the images.
    """

    def __init__(
        self,
        network: nn.Module,
        input_space: InputSpace,
        *,
        num_classes: int,
        classifier: nn.Module | None,
        warnings: Sequence[str] = (),
        engine: Engine | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.input_space = input_space
        self.num_classes = num_classes
        self.classifier = classifier
        self.engine = engine or Engine()  # the networks that learn from this teacher use the same engine
        self.warnings = list(warnings)  # codes, e.g. "teacher-batchnorm-folded", "input-range-unknown"

    @property
    def offers(self) -> frozenset[str]:
        """The set of what a method may require: "batchnorm" (running statistics), "features" (penultimate vector)."""
        offered = set()
        if any(isinstance(module, nn.BatchNorm2d) for module in self.network.modules()):
            offered.add("batchnorm")
        if self.classifier is not None:
            offered.add("features")
        return frozenset(offered)

    def with_precision(self, engine: Engine) -> "Teacher":
        """Return a teacher with the same network, computed by another engine."""
        return Teacher(
            self.network,
            self.input_space,
            num_classes=self.num_classes,
            classifier=self.classifier,
            warnings=self.warnings,
            engine=engine,
        )

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode, whatever `mode` says."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images (N, C, H, W).

        Raises:
            TeacherMismatch: the network returns another number of logits.
        """
        logits: Tensor = self.engine(self.network, images)
        if logits.shape[1:] != (self.num_classes,):
            raise TeacherMismatch(f"teacher returns {tuple(logits.shape[1:])}, not ({self.num_classes},)")
        return logits

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N, num_classes) and the penultimate features (N, F) of images (N, C, H, W).

        Raises:
            TeacherMismatch: the teacher does not offer "features".
        """
        if self.classifier is None:
            raise TeacherMismatch("this teacher has no linear classifier whose input could be read")
        return forward_with_input_of(self.classifier, self, images)

    @torch.no_grad()
    def label(self, images: Tensor) -> Tensor:
        """Return the detached logits (N, num_classes) of images (N, C, H, W)."""
        logits: Tensor = self(images)
        return logits
