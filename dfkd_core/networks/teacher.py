"""Teacher: a frozen network with its input space, its number of classes and what it offers to methods."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dfkd_core.errors import TeacherMismatch
from dfkd_core.interface import TeacherInterface, plain_interface
from dfkd_core.networks.batchnorm import BatchNormStatistics, ChannelMeans, Moments, joined_moments
from dfkd_core.networks.hooks import forward_with_input_of
from dfkd_core.networks.precision import Engine

Features = Literal["penultimate", "channel_means"]
"""What can be read beside the logits: the input of the classifier, or each channel's mean at all BatchNorm inputs."""


@dataclass(frozen=True, slots=True)
class InputSpace:
    """The valid images of a teacher: their shape (C, H, W) and the lowest and highest value of each channel.

    The networks that learn from the teacher compute with the same values. Where the teacher's file takes raw pixels,
    such as 0 to 255, they are scaled: the file's value is offset + scale · value.
    """

    shape: tuple[int, int, int]
    low: tuple[float, ...]  # (C,)
    high: tuple[float, ...]  # (C,)
    range_known: bool  # False if mean and std were not given and the bounds are a guess
    offset: float = 0.0
    scale: float = 1.0
    whole: bool = False  # the file takes whole numbers only

    @property
    def is_scaled(self) -> bool:
        """Whether the file's values differ from those of the networks."""
        return (self.offset, self.scale) != (0.0, 1.0)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest values, each (1, C, 1, 1), float32 on the CPU."""
        return torch.tensor(self.low).view(1, -1, 1, 1), torch.tensor(self.high).view(1, -1, 1, 1)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a teacher says of images, and what was read inside it. Gradients reach the images."""

    logits: Tensor  # (N, num_classes)
    features: Tensor | None = None  # (N, F)
    moments: Sequence[Moments] = ()  # of the images together, one for each BatchNorm2d


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
        interface: TeacherInterface | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.input_space = input_space
        self.num_classes = num_classes
        self.classifier = classifier
        self.interface = interface or plain_interface(num_classes)  # what the teacher's file takes and returns
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
            interface=self.interface,
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

    def observe(self, images: Tensor, *, features: Features | None = None, moments: bool = False) -> Observation:
        """Return the logits of images (N, C, H, W), and what else is asked for.

        More images than `compute.chunk` pass in chunks. Their activations are computed again where a gradient needs
        them, so that those of one chunk are in memory at a time; the gradient is that of all images together.
        """
        with_gradient = images.requires_grad and torch.is_grad_enabled()
        most = self.engine.compute.chunk if with_gradient else self.engine.compute.label_chunk
        if most is None or len(images) <= most:
            return self._observe(images, features, moments)
        read = self._recomputing if with_gradient else self._observe
        return _joined([read(part, features, moments) for part in torch.split(images, most)])

    def _recomputing(self, images: Tensor, features: Features | None, moments: bool) -> Observation:
        """Observe images, and keep none of the activations; a gradient computes them again."""
        observation: Observation = checkpoint(
            self._observe,
            images,
            features,
            moments,
            use_reentrant=False,
            preserve_rng_state=False,
            early_stop=False,  # the whole forward, so that it ends in a beat
        )
        return observation

    def _observe(self, images: Tensor, features: Features | None, moments: bool) -> Observation:
        with ExitStack() as open_readers:
            statistics = open_readers.enter_context(BatchNormStatistics(self.network)) if moments else None
            means = open_readers.enter_context(ChannelMeans(self.network)) if features == "channel_means" else None
            read: Tensor | None = None
            if features == "penultimate":
                logits, read = self.forward_with_features(images)
            else:
                logits = self(images)
            if means is not None:
                read = means.all()
            return Observation(logits, read, () if statistics is None else statistics.moments)

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
        """Return the detached logits (N, num_classes) of images (N, C, H, W), computed in chunks."""
        return self.observe(images.detach()).logits


def _joined(parts: Sequence[Observation]) -> Observation:
    """Return what was observed of several parts as an observation of all their images."""
    features = [part.features for part in parts if part.features is not None]
    return Observation(
        logits=torch.cat([part.logits for part in parts]),
        features=torch.cat(features) if features else None,
        moments=joined_moments([part.moments for part in parts], [len(part.logits) for part in parts]),
    )
