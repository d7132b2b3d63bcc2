"""Transfer: what a student learns from inside its teacher, beside the logits.

Penultimate features: Romero et al., *FitNets: Hints for Thin Deep Nets*, ICLR 2015, https://arxiv.org/abs/1412.6550. A
linear map, learnt beside the student, guesses the teacher's from the student's.
Attention: Zagoruyko and Komodakis, *Paying More Attention to Attention*, ICLR 2017, https://arxiv.org/abs/1612.03928.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core import losses
from dfkd_core.config import Training
from dfkd_core.engine import widened
from dfkd_core.errors import RequirementError
from dfkd_core.forward import forward_with_input_of
from dfkd_core.teachers.teacher import Teacher

Size = tuple[int, int]  # height, width

REGRESSOR_RATE = 1e-3  # of Adam, times the student's schedule
RIDGE = 1e-3  # of the mean square of a feature, in the regressor's start


class Transfer:
    """The weighted losses of a pair. That of the features is left out where `features` is False, and for a pair that
    does not end in linear layers.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, training: Training, *, features: bool = True) -> None:
        self._student, self._teacher = student, teacher
        self._attention_weight = training.attention_weight
        own = getattr(student, "classifier", None)
        self._read = own if isinstance(own, nn.Linear) and "features" in teacher.offers else None
        self._feature_weight = training.feature_weight if features and self._read is not None else 0.0
        self._regressor: Tensor | None = None  # (F_student + 1, F_teacher), the last row is the bias
        self._optimizer: torch.optim.Adam | None = None

    @property
    def active(self) -> bool:
        """Whether there is anything to learn but the logits."""
        return self._feature_weight > 0 or self._attention_weight > 0

    def compare(self, images: Tensor, *, featured: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of student and teacher for images (N, C, H, W), each (N, num_classes), and the weighted losses.

        Features are compared on the first `featured` images, attention on all.
        """
        with torch.no_grad(), _attention_maps(self._teacher, wanted=self._attention_weight > 0) as theirs:
            if self._feature_weight:
                teacher_logits, wanted = self._teacher.forward_with_features(images)
            else:
                teacher_logits = self._teacher(images)
        with _attention_maps(self._student, wanted=self._attention_weight > 0) as ours:
            if self._feature_weight:
                assert self._read is not None
                student_logits, known = forward_with_input_of(self._read, self._student, images)
            else:
                student_logits = self._student(images)
        loss = torch.zeros((), device=images.device)
        if self._attention_weight:
            loss = loss + self._attention_weight * losses.attention_distance(_alike(ours, theirs))
        if self._feature_weight and featured:
            known, wanted = known[:featured], wanted[:featured]
            loss = loss + self._feature_weight * losses.unexplained(self._guess(known, wanted), wanted)
        return student_logits, teacher_logits, loss

    def step(self, *, rate: float) -> None:
        """Move the regressor along the gradient of the last comparison; `rate` is that of the student's schedule."""
        if self._optimizer is not None:
            self._optimizer.param_groups[0]["lr"] = REGRESSOR_RATE * rate
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def _guess(self, known: Tensor, wanted: Tensor) -> Tensor:
        if self._regressor is None:
            self._learn(_least_squares(known.detach(), wanted))
        assert self._regressor is not None
        return _with_ones(known) @ self._regressor

    def _learn(self, regressor: Tensor) -> None:
        self._regressor = regressor.requires_grad_(True)
        self._optimizer = torch.optim.Adam([self._regressor])

    def state(self) -> dict[str, Any]:
        """The regressor and its optimiser; nothing before the first comparison."""
        if self._regressor is None or self._optimizer is None:
            return {}
        return {"regressor": self._regressor.detach(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue an earlier one."""
        if state:
            device = next(self._student.parameters()).device
            self._learn(state["regressor"].to(device, copy=True))
            assert self._optimizer is not None
            self._optimizer.load_state_dict(state["optimizer"])


@contextmanager
def _attention_maps(network: nn.Module, *, wanted: bool) -> Iterator[dict[Size, Tensor]]:
    """While open, the last feature map (N, C, H, W) of every size that goes through a layer of `network`."""
    maps: dict[Size, Tensor] = {}

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            maps[output.shape[2], output.shape[3]] = widened(output)

    layers = [module for module in network.modules() if not any(module.children())] if wanted else []
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _alike(ours: Mapping[Size, Tensor], theirs: Mapping[Size, Tensor]) -> list[tuple[Tensor, Tensor]]:
    pairs = [(ours[size], theirs[size]) for size in ours if size in theirs and size != (1, 1)]
    if not pairs:
        raise RequirementError(
            "student and teacher have no feature maps of the same size whose attention could be compared",
            hint="Set distillation.training.attention_weight to 0, or choose a student closer to its teacher.",
            pointer="/distillation/training/attention_weight",
        )
    return pairs


def _with_ones(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _least_squares(known: Tensor, wanted: Tensor) -> Tensor:
    """The affine map that guesses `wanted` (N, G) from `known` (N, F) best, a little pulled to 0: (F + 1, G)."""
    inputs = _with_ones(known)
    gram = inputs.T @ inputs
    pull = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
    solution: Tensor = torch.linalg.solve(gram + pull, inputs.T @ wanted)
    return solution
