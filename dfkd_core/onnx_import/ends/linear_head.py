"""Rewriting of the linear layer at the end of a graph, so that it gives the logits (N, num_classes) by itself.

A constant factor behind the layer, such as a temperature, goes into its weights. A layer of one output, which tells two
classes apart, gets a first output that is always 0.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dfkd_core.onnx_import.ends.output_form import Head
from dfkd_core.onnx_import.ends.second_class import uniform
from dfkd_core.onnx_import.ir.plan import PASSING, Array, Step
from dfkd_core.onnx_import.ir.state import GraphState

COMMUTING = {*PASSING, "ReduceMean", "AveragePool", "Transpose"}  # a factor may be applied before or after them


def fold_factor(state: GraphState, steps: list[Step], head: Head) -> None:
    """Move a constant factor between the last linear layer and the logits into the layer's weights."""
    chain = _Chain(state, steps)
    factor, scaling, name = 1.0, list[int](), head.value
    while (at := chain.makers.get(name)) is not None and (name == head.value or chain.uses[name] == 1):
        source = chain.scaled_source(steps[at])
        if source is not None:
            scaling.append(at)
            name, factor = source[0], factor * source[1]
        elif steps[at].op in COMMUTING:
            name = str(steps[at].inputs[0])
        else:
            break
    if at is None or not scaling or chain.uses[name] != 1 or not chain.scale(at, factor, math.prod(head.shape)):
        return
    for index in scaling:
        source = chain.scaled_source(steps[index])
        assert source is not None
        steps[index] = replace(steps[index], op="Identity", inputs=(source[0],), attributes={})
    head.notes.append("temperature-folded")


def widen_to_two(state: GraphState, steps: Sequence[Step], head: Head) -> None:
    """Give a linear layer of one output a second one, so that it returns the logits [0, z] or [z, 0] of two classes."""
    if math.prod(head.shape) != 1 or head.form != "logits":
        return
    makers = {name: step for step in steps for name in step.outputs}
    step = makers.get(head.value)
    while step is not None and step.op in PASSING:
        step = makers.get(str(step.inputs[0]))
    offset = None
    if step is not None and step.op == "Add":
        offset = next((name for name in step.inputs if name in state.constants), None)
        step = makers.get(str(next((name for name in step.inputs if name not in state.constants), None)))
        if offset is None or step is None or step.op != "MatMul":
            return
    if step is None or step.op not in ("Gemm", "MatMul") or not _is_row(state, step):
        return
    if step.op == "Gemm" and len(step.inputs) > 2:
        offset = step.inputs[2]
    if offset is not None and (offset not in state.constants or state.constants[offset].size != 1):
        return
    prefix = f"{head.value}/two/"
    head.steps, head.logits = _two_rows(state, step, offset, prefix=prefix, is_reversed=head.is_reversed), prefix


def _is_row(state: GraphState, step: Step) -> bool:
    """Return whether a matrix product turns each image's row of features into one number."""
    matrix = state.constants.get(str(step.inputs[1]))
    rank = len(state.values[str(step.inputs[0])].shapes[0])
    if matrix is None or matrix.ndim != 2 or rank != 2 or step.attributes.get("flip_a"):
        return False
    return int(matrix.shape[_output_axis(step)]) == 1


def _output_axis(step: Step) -> int:
    return 0 if step.attributes.get("flip_b") else 1


def _two_rows(state: GraphState, step: Step, offset: str | None, *, prefix: str, is_reversed: bool) -> list[Step]:
    """Return steps that compute the layer with one more output, which is always 0: in front, or behind if reversed.

    The last step names its result `prefix`.
    """

    def with_zeros(array: Array, axis: int) -> Array:
        parts = [array, np.zeros_like(array)] if is_reversed else [np.zeros_like(array), array]
        return np.concatenate(parts, axis)

    matrix, weight, bias = str(step.inputs[1]), f"{prefix}weight/", f"{prefix}bias/"
    state.derive(weight, with_zeros(state.constants[matrix], _output_axis(step)), source=matrix)
    if offset is not None:
        state.derive(bias, with_zeros(state.constants[offset].reshape(1), 0), source=offset)
    factors = (step.inputs[0], weight)
    if step.op == "Gemm" or offset is None:
        inputs = factors if offset is None else (*factors, bias)
        return [replace(step, inputs=inputs, outputs=(prefix,))]
    product = replace(step, inputs=factors, outputs=(f"{prefix}product/",))
    return [product, Step("Add", step.name, (f"{prefix}product/", bias), (prefix,), {})]


@dataclass(slots=True)
class _Chain:
    """The steps of a graph, and which of them makes and uses each value."""

    state: GraphState
    steps: list[Step]
    makers: dict[str, int] = field(init=False)
    uses: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.makers = {name: at for at, step in enumerate(self.steps) for name in step.outputs}
        self.uses = Counter(name for step in self.steps for name in step.inputs if name)

    def scaled_source(self, step: Step) -> tuple[str, float] | None:
        """Return what a step multiplies by one constant number, and the number; None if it does something else."""
        if step.op not in ("Mul", "Div"):
            return None
        for at, name in enumerate(step.inputs):
            array = self.state.constants.get(str(name))
            if array is None or array.size != 1 or (step.op == "Div" and at == 0):
                continue
            number = uniform(array)
            if number is None or not math.isfinite(number) or number == 0:
                return None
            return str(step.inputs[1 - at]), number if step.op == "Mul" else 1 / number
        return None

    def scale(self, at: int, factor: float, count: int) -> bool:
        """Multiply the weights of the layer of step `at` by a factor; False if it is no layer of `count` outputs."""
        step, constants = self.steps[at], self.state.constants
        weights = [name for name in step.inputs if name in constants]
        if step.op in ("Gemm", "MatMul", "Conv"):
            matrix = constants.get(str(step.inputs[1]))
            axis = 0 if step.op == "Conv" or step.attributes.get("flip_b") else -1
            if matrix is None or not matrix.ndim or matrix.shape[axis] != count:
                return False
        if step.op == "Gemm":
            scaled = {key: step.attributes[key] * factor for key in ("alpha", "beta")}
            self.steps[at] = replace(step, attributes={**step.attributes, **scaled})
            return True
        if step.op == "Add" and len(weights) == 1:
            product = next(str(name) for name in step.inputs if name not in constants)
            place = self.makers.get(product)
            if place is None or self.uses[product] != 1 or self.steps[place].op != "MatMul":
                return False
            if not self.scale(place, factor, count):
                return False
        elif step.op not in ("MatMul", "Conv") or len(weights) != sum(name is not None for name in step.inputs[1:]):
            return False
        self.steps[at] = self._with_scaled(step, [str(name) for name in weights], factor)
        return True

    def _with_scaled(self, step: Step, names: list[str], factor: float) -> Step:
        """Return the step with its constants `names` multiplied by a factor."""
        renamed = {name: f"{name}/scaled/" for name in names}
        for name, new in renamed.items():
            array = self.state.constants[name]
            self.state.derive(new, np.asarray(np.multiply(array, factor), array.dtype), source=name)
        return replace(step, inputs=tuple(renamed.get(str(one), one) for one in step.inputs))
