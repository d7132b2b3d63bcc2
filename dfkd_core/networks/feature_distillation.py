"""Transfer: losses by which a student learns from the teacher's inner layers, beside the logits.

Features: Romero et al., *FitNets: Hints for Thin Deep Nets*, ICLR 2015, https://arxiv.org/abs/1412.6550. The features
are the output of the last layer with weights before the classifier, before any rectifier. A linear map of channels, the
regressor, predicts the teacher's features from the student's. FitNets train it by gradient descent beside the student;
here it is solved again at each update, from the moments of the last updates, so it follows a student that changes fast.
Attention: Zagoruyko and Komodakis, *Paying More Attention to Attention*, ICLR 2017, https://arxiv.org/abs/1612.03928.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.errors import RequirementError
from dfkd_core.networks import losses
from dfkd_core.networks.block_matching import BlockMatching
from dfkd_core.networks.hooks import evaluating, hooked, layers_in_order
from dfkd_core.networks.precision import to_float32
from dfkd_core.networks.regressor import Regressor
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.config import Training

Size = tuple[int, int]  # height, width


class Transfer:
    """Computes the weighted losses of a student and its teacher.

    The losses of features and blocks are left out if `features` is False, or where the two networks have no features or
    blocks to compare. The student has not learnt yet: its blocks are recognised by what it has from its teacher.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, training: Training, *, features: bool = True) -> None:
        self._student, self._teacher = student, teacher
        self._attention_weight = training.attention_weight
        self._feature_weight = training.feature_weight
        self._block_weight = training.block_weight
        self._blocks = _block_matching(student, teacher) if features and training.block_weight else BlockMatching([])
        self._layers = _feature_layers(student, teacher) if features and training.feature_weight else None
        self._regressor = Regressor()

    @property
    def active(self) -> bool:
        """True if the student learns from more than the logits."""
        return self._layers is not None or self._attention_weight > 0 or len(self._blocks) > 0

    def compare(self, images: Tensor, *, featured: int, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of student and teacher for images (N, C, H, W), each (N, num_classes), and the loss.

        The loss is the weighted sum of the feature, block and attention losses, a scalar. Features and blocks are
        compared on the first `featured` images, attention on all images. `rate`, the factor of the student's schedule,
        multiplies the weights of features and blocks, so that the logits decide at the end of the run.
        """
        own_layer, their_layer = self._layers or (None, None)
        attends = self._attention_weight > 0
        with (
            torch.no_grad(),
            _watched(self._teacher, their_layer, maps=attends) as theirs,
            self._blocks.watching_teacher(featured) as their_blocks,
        ):
            teacher_logits = self._teacher(images)
        with _watched(self._student, own_layer, maps=attends) as ours, self._blocks.watching_student() as own_blocks:
            student_logits = self._student(images)
        loss = torch.zeros((), device=images.device)
        if attends:
            loss = loss + self._attention_weight * losses.attention_distance(_alike(ours.maps, theirs.maps))
        if self._layers is not None and featured:
            known, wanted = (_by_place(seen.features[:featured]) for seen in (ours, theirs))
            unexplained = losses.unexplained(self._regressor.guess(known, wanted), wanted)
            loss = loss + self._feature_weight * rate * unexplained
        if len(self._blocks) and featured:
            wrong = self._blocks.loss(own_blocks, their_blocks)
            loss = loss + self._block_weight * rate * wrong
        return student_logits, teacher_logits, loss

    def step(self) -> None:
        """Let the regressor remember the comparisons since the last step."""
        self._regressor.remember()

    def state(self) -> dict[str, Any]:
        """Return the state of the regressor; the dict is empty before the first step."""
        return self._regressor.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier run."""
        self._regressor.restore(state, device=next(self._student.parameters()).device)


@dataclass(slots=True)
class _Seen:
    """Features and feature maps of one forward."""

    features: Tensor = field(default_factory=lambda: torch.empty(0))
    maps: dict[Size, Tensor] = field(default_factory=dict)  # the last feature map (N, C, H, W) of every size


@contextmanager
def _watched(network: nn.Module, layer: nn.Module | None, *, maps: bool) -> Iterator[_Seen]:
    """Record the output of `layer`, and feature maps if `maps` is True, at each forward while the context is open."""
    seen = _Seen()

    def keep_features(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.features = to_float32(output)

    def keep_map(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            seen.maps[output.shape[2], output.shape[3]] = to_float32(output)

    leaves = [module for module in network.modules() if not any(module.children())] if maps else []
    handles = [leaf.register_forward_hook(keep_map) for leaf in leaves]
    handles += [] if layer is None else [layer.register_forward_hook(keep_features)]
    with hooked(handles):
        yield seen


def _block_matching(student: nn.Module, teacher: Teacher) -> BlockMatching:
    device = next(student.parameters()).device
    return BlockMatching.of(student, teacher.network, torch.zeros(1, *teacher.input_space.shape, device=device))


def _feature_layers(student: nn.Module, teacher: Teacher) -> tuple[nn.Module, nn.Module] | None:
    """Return the layers of student and teacher whose outputs are compared.

    The result is None if a network has no such layer, or if the outputs differ in more than their channels.
    """
    image = torch.zeros(1, *teacher.input_space.shape, device=next(student.parameters()).device)
    own = _before(student, getattr(student, "classifier", None), image)
    theirs = _before(teacher, teacher.classifier, image)
    if own is None or theirs is None:
        return None
    shapes = []
    for network, layer in (student, own), (teacher, theirs):
        with torch.no_grad(), evaluating(network), _watched(network, layer, maps=False) as seen:
            network(image)
        shapes.append(seen.features.shape)
    alike = len(shapes[0]) in (2, 4) and shapes[0][2:] == shapes[1][2:]
    return (own, theirs) if alike else None


def _before(network: nn.Module, classifier: nn.Module | None, image: Tensor) -> nn.Module | None:
    """Return the layer with weights that runs right before the classifier, or None."""
    layers = list(layers_in_order(network, image).values())
    return next((layer for layer, after in pairwise(layers) if after is classifier), None)


def _by_place(features: Tensor) -> Tensor:
    """Return features (N, C) unchanged, or features (N, C, H, W) as one row for each place: (N·H·W, C)."""
    return features.transpose(0, 1).flatten(1).T


def _alike(ours: Mapping[Size, Tensor], theirs: Mapping[Size, Tensor]) -> list[tuple[Tensor, Tensor]]:
    pairs = [(ours[size], theirs[size]) for size in ours if size in theirs and size != (1, 1)]
    if not pairs:
        raise RequirementError(
            "student and teacher have no feature maps of the same size whose attention could be compared",
            hint="Set distillation.training.attention_weight to 0, or choose a student closer to its teacher.",
            pointer="/distillation/training/attention_weight",
        )
    return pairs
