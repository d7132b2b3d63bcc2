"""Normalisation that the graph does itself: the constant factors and offsets that its images meet first."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dfkd_core.inspection.input_space.conventions import BYTES, ZERO_ONE, Convention
from dfkd_core.onnx_import.ir.plan import PASSING, Array, Plan, Step

_MOVING = {*PASSING, "Transpose"}
LARGEST_DEVIATION, LARGEST_MEAN = 2.0, 1.5
"""Of pixels in [0, 1]: what is subtracted from them, or divided by, is no larger. Of pixels up to 255 it is larger."""


@dataclass(slots=True)
class _Affine:
    """What became of a pixel x: scale · x + offset; both broadcast over the channels."""

    scale: Any  # arrays of float64
    offset: Any

    def apply(self, step: Step, constant: Array) -> None:
        if step.op == "Mul":
            self.scale, self.offset = np.multiply(self.scale, constant), np.multiply(self.offset, constant)
        elif step.op == "Div":
            self.scale, self.offset = np.divide(self.scale, constant), np.divide(self.offset, constant)
        elif step.op == "Add":
            self.offset = np.add(self.offset, constant)
        else:
            self.offset = np.subtract(self.offset, constant)


def pixels_of_graph(plan: Plan) -> Convention | None:
    """Return what the graph itself takes its pixels for, [0, 1] or [0, 255]; None if it does not normalise them."""
    readers: dict[str, list[Step]] = {}
    for step in plan.steps:
        for name in step.inputs:
            if name is not None:
                readers.setdefault(name, []).append(step)
    affine, value, any_step = _Affine(np.ones(1), np.zeros(1)), plan.input_name, False
    while len(readers.get(value, [])) == 1:
        (step,) = readers[value]
        constant = _constant_of(plan, step, value)
        if step.op not in _MOVING and constant is None:
            break
        if constant is not None:
            affine.apply(step, constant.reshape(-1))
            any_step = True
        value = step.outputs[0]
    if not any_step or not np.all(affine.scale):
        return None
    mean, deviation = -affine.offset / affine.scale, 1 / np.abs(affine.scale)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        return None
    large = deviation.max() > LARGEST_DEVIATION or np.abs(mean).max() > LARGEST_MEAN
    return BYTES if large else ZERO_ONE


def _constant_of(plan: Plan, step: Step, value: str) -> Array | None:
    """Return the constant that a step adds to a value or multiplies it by, if it does; one number or one a channel."""
    if step.op not in ("Mul", "Div", "Add", "Sub") or step.inputs[0] != value:
        swaps = step.op in ("Mul", "Add") and len(step.inputs) > 1 and step.inputs[1] == value
        name = step.inputs[0] if swaps else None
    else:
        name = step.inputs[1]
    constant = None if name is None else plan.constants.get(name)
    if constant is None or sum(size > 1 for size in constant.shape) > 1:
        return None
    return np.asarray(constant, np.float64)
