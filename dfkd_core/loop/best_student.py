"""BestStudent: a candidate replaces the published student only if it beats that student on the current probe.

Both are scored on the same images. The candidate must agree with the teacher at least as often, and the mean paired
difference of the overlap of the softmaxes must exceed a multiple of its standard error.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dfkd_core.images.batch import Labelled
from dfkd_core.images.student_answers import answers
from dfkd_core.loop.probe import agrees, overlap

Answering = Callable[[str, nn.Module, Labelled], Tensor]
"""A name, the student that bears it and images → the student's logits (N, num_classes)."""


def _plain_answers(_name: str, student: nn.Module, images: Labelled) -> Tensor:
    return answers(student, images)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of one comparison. Agreements are shares of the same probe."""

    candidate: float
    published: float  # the agreement of the student that is published after the comparison
    replaced: bool


class BestStudent:
    """Holds the published student. Its agreement on one and the same probe never falls."""

    def __init__(self, student: nn.Module, *, margin: float) -> None:
        self.published = copy.deepcopy(student).eval().requires_grad_(False)
        self.published_step: int | None = None
        self._margin = margin

    def maybe_replace(
        self,
        candidate: nn.Module,
        probe: Labelled,
        *,
        step: int,
        margin_scale: float = 1.0,
        answers_of: Answering = _plain_answers,
    ) -> Comparison:
        """Compare candidate and published student image by image on `probe`; publish the candidate if it is better.

        `margin_scale` in [0, 1] scales the margin, because an average that hardly changes any more needs less evidence.
        `answers_of` computes the logits of both on the probe.
        """
        new, old = answers_of("candidate", candidate, probe), answers_of("published", self.published, probe)
        new_share, old_share = (float(agrees(logits, probe).double().mean()) for logits in (new, old))
        better = beats(overlap(new, probe), overlap(old, probe), margin=self._margin * margin_scale)
        replaced = self.published_step is None or (better and new_share >= old_share)
        if replaced:
            self.published.load_state_dict(candidate.state_dict())
            self.published_step = step
        return Comparison(candidate=new_share, published=new_share if replaced else old_share, replaced=replaced)

    def state(self) -> dict[str, Any]:
        """Return the published student and its step."""
        return {"network": self.published.state_dict(), "step": self.published_step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Publish again what was published."""
        self.published.load_state_dict(state["network"])
        self.published_step = state["step"]


def beats(new: Tensor, old: Tensor, *, margin: float) -> bool:
    """Return whether the mean paired difference of two scores (N,) exceeds `margin` standard errors."""
    difference = new.double() - old.double()
    standard_error = difference.std(correction=0) / max(1, len(difference)) ** 0.5
    return bool(difference.mean() > margin * standard_error)
