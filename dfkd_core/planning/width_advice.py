"""Advice on the width of a narrowed teacher, from facts alone (torch-free)."""

from collections.abc import Sequence

from dfkd_core.notice import Notice
from dfkd_core.planning.nominal import are_large
from dfkd_core.spec.config import PRUNED_TEACHER, DistillConfig, StudentSpec

GENTLE_WIDTH = 0.75
FEW_IMAGES = 20_000
"""Images, counted again in each update, with which half a network of large images does not get near its teacher."""


def width_advice(student: StudentSpec, config: DistillConfig, shape: Sequence[int]) -> list[Notice]:
    """Return the warning that a run is too short for the width of a narrowed teacher of large images (C, H, W)."""
    seen = config.budget.steps * config.training.batch_size
    cut = student.architecture == PRUNED_TEACHER and student.params is None and student.width < GENTLE_WIDTH
    if not cut or seen >= FEW_IMAGES or not are_large(shape):
        return []
    detail = (
        f"{config.budget.steps} updates of {config.training.batch_size} images are few for a student of width "
        f"{student.width:g}: a narrower copy has more to learn anew"
    )
    hint = f"Raise distillation.budget.effort, or set student.width to {GENTLE_WIDTH:g}."
    return [Notice(code="gentler-width", detail=detail, hint=hint)]
