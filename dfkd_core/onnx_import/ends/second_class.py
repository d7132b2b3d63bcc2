"""Recognition of the probability of one of two classes: one number for each image between 0 and 1, however spelled.

Exporters write 1 - p as Sub, as Neg and Add or as Mul and Add, and casts, clips and reshapes may lie around each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dfkd_core.onnx_import.ir.plan import PASSING, Array, Step
from dfkd_core.onnx_import.ir.state import GraphState

TOLERANCE = 1e-3  # of factors and offsets
CLIPPED = 0.01  # a clip between at most this and at least 1 - this leaves probabilities what they are
MOST_VALUES = 100  # how many values are looked at, which bounds the recursion
MOVED = {*PASSING, "Expand", "Transpose"}  # operations that change no number of a value of one number for each image
TAKEN = {"Slice", "Gather", "Split", "ReduceMean"}  # the results lie between the least and the largest of the input

Interval = tuple[float, float]
ANY: Interval = (-math.inf, math.inf)
RANGES: dict[str, Interval] = {
    "Sigmoid": (0, 1), "HardSigmoid": (0, 1), "Softmax": (0, 1), "Tanh": (-1, 1), "Softsign": (-1, 1),
    "Exp": (0, math.inf), "Relu": (0, math.inf), "Softplus": (0, math.inf), "Abs": (0, math.inf),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Affine:
    """One number for each image as `factor` · x + `offset`, where the step `maker` computes x, named `value`."""

    maker: Step
    value: str
    factor: float = 1.0
    offset: float = 0.0

    @property
    def is_same(self) -> bool:
        """Whether the number is x."""
        return abs(self.factor - 1) <= TOLERANCE and abs(self.offset) <= TOLERANCE

    @property
    def is_rest(self) -> bool:
        """Whether the number is 1 - x."""
        return abs(self.factor + 1) <= TOLERANCE and abs(self.offset - 1) <= TOLERANCE


@dataclass(frozen=True, slots=True)
class PairLogits:
    """The value behind the probability of a class: the logit z of one class, or the logits of both (N, 2).

    As logits of two classes, z stands for [0, z]. `is_reversed` tells that the classes come in the other order, so that
    the logits are [z, 0].
    """

    logits: str
    count: int  # of numbers for each image
    is_reversed: bool


@dataclass(slots=True)
class SecondClass:
    """Says of values of one number for each image whether they are probabilities. `steps` makes each value."""

    steps: Mapping[str, Step]
    state: GraphState
    known: dict[str, Interval] = field(default_factory=dict)

    def logits(self, name: str) -> PairLogits | None:
        """Return the logits behind σ(z), 1 - σ(z), or one of the two results of a softmax; None if it is none."""
        found = self.affine(name)
        if found is None or not (found.is_same or found.is_rest):
            return None
        source = str(found.maker.inputs[0])
        if found.maker.op == "Sigmoid" and self.is_one_number(source):
            return PairLogits(source, 1, is_reversed=found.is_rest)
        at = self._place(found)
        softmax = self.steps.get(source)
        if at is None or softmax is None or softmax.op != "Softmax":
            return None
        shape = self.state.values[source].shapes[0]
        if softmax.attributes["axis"] != len(shape) - 1 or math.prod(shape) != 2 * self.state.batch_sizes[0]:
            return None
        return PairLogits(str(softmax.inputs[0]), 2, is_reversed=(at == 0) != found.is_rest)

    def is_probability(self, name: str) -> bool:
        """Return whether the graph shows that the number may be anything from 0 to 1, and nothing else."""
        low, high = self._range(name)
        return abs(low) <= CLIPPED and abs(high - 1) <= CLIPPED

    def is_bounded(self, name: str) -> bool:
        """Return whether the graph shows that the numbers of a value lie between 0 and 1."""
        low, high = self._range(name)
        return low >= -TOLERANCE and high <= 1 + TOLERANCE

    def affine(self, name: str) -> Affine | None:
        """Return a number as a factor and an offset of what an earlier step computes; None if it is no such number.

        Clips that leave numbers from 0 to 1 what they are count as nothing.
        """
        factor, offset = 1.0, 0.0
        step = self.steps.get(name)
        if step is None or not self.is_one_number(name):
            return None
        while (before := self._before(step, factor, offset)) is not None:
            if before[0] not in self.steps or not self.is_one_number(before[0]):
                break
            name, factor, offset = before
            step = self.steps[name]
        return Affine(step, name, factor, offset)

    def is_one_number(self, name: str) -> bool:
        """Return whether a value has one number for each image."""
        value = self.state.values.get(name)
        return value is not None and tuple(map(math.prod, value.shapes)) == self.state.batch_sizes

    def _before(self, step: Step, factor: float, offset: float) -> tuple[str, float, float] | None:
        """Return the input of a step, with the factor and the offset that make the same number of it."""
        source = str(step.inputs[0])
        if step.op in MOVED or (step.op in TAKEN and self.is_one_number(source)):
            return source, factor, offset
        if step.op == "Clip":
            ends = sorted(((0 - offset) / factor, (1 - offset) / factor))
            loose = CLIPPED / abs(factor)
            leaves = step.attributes["min"] <= ends[0] + loose and step.attributes["max"] >= ends[1] - loose
            return (source, factor, offset) if leaves else None
        if step.op == "Neg":
            return source, -factor, offset
        return self._before_arithmetic(step, factor, offset)

    def _before_arithmetic(self, step: Step, factor: float, offset: float) -> tuple[str, float, float] | None:
        """Return the same of an operation with one constant number."""
        numbers = [uniform(self.state.constants.get(str(name))) for name in step.inputs]
        if step.op not in ("Add", "Sub", "Mul", "Div") or numbers.count(None) != 1:
            return None
        at = numbers.index(None)
        number, source = float(numbers[1 - at] or 0), str(step.inputs[at])
        match step.op:
            case "Add":
                return source, factor, offset + factor * number
            case "Sub":
                sign = 1 if at == 0 else -1
                return source, sign * factor, offset - sign * factor * number
            case _ if number == 0 or (step.op == "Div" and at == 1):
                return None
        return source, factor * number if step.op == "Mul" else factor / number, offset

    def _place(self, found: Affine) -> int | None:
        """Return which entry of the last axis of its input a step takes; None if it takes no single one."""
        step = found.maker
        if step.op not in ("Slice", "Gather", "Split"):
            return None
        shape = self.state.values[str(step.inputs[0])].shapes[0]
        last, attributes = len(shape) - 1, step.attributes
        if step.op == "Slice":
            cuts = [cut for cut in attributes["cuts"] if cut[0] == last]
            return int(cuts[0][1]) if len(cuts) == 1 else None
        if attributes["axis"] != last:
            return None
        if step.op == "Split":
            return step.outputs.index(found.value)
        indices = attributes["indices"]
        while isinstance(indices, list | tuple) and len(indices) == 1:
            indices = indices[0]
        return int(indices) % shape[last] if not isinstance(indices, list | tuple) else None

    def _range(self, name: str) -> Interval:
        """Return the least and the largest number that the graph lets a value be."""
        if name not in self.known:
            number = uniform(self.state.constants.get(name))
            self.known[name] = ANY if number is None else (number, number)
            if name in self.steps and len(self.known) <= MOST_VALUES:
                self.known[name] = self._range_of(self.steps[name])
        return self.known[name]

    def _range_of(self, step: Step) -> Interval:
        ranges = [self._range(str(name)) for name in step.inputs if name is not None]
        low, high = ranges[0] if ranges else ANY
        found = RANGES.get(step.op, (low, high) if step.op in MOVED | TAKEN else ANY)
        match step.op:
            case "Clip":
                found = max(low, step.attributes["min"]), min(high, step.attributes["max"])
            case "Neg":
                found = -high, -low
            case "Add" | "Sum" | "Mean":
                count = len(ranges) if step.op == "Mean" else 1
                found = sum(one[0] for one in ranges) / count, sum(one[1] for one in ranges) / count
            case "Sub":
                found = low - ranges[1][1], high - ranges[1][0]
            case "Mul" | "Div":
                found = _scaled(step.op, ranges)
        return found


def _scaled(op: str, ranges: list[Interval]) -> Interval:
    """Return the range of a product or a quotient; products of infinite numbers may be anything."""
    (low, high), (least, most) = ranges
    if not all(map(math.isfinite, (low, high, least, most))) or (op == "Div" and least <= 0 <= most):
        return ANY
    ends = [one * two if op == "Mul" else one / two for one in (low, high) for two in (least, most)]
    return min(ends), max(ends)


def uniform(array: Array | None) -> float | None:
    """Return the number that all elements of a constant are; None if it is no constant or they differ."""
    if array is None or array.dtype.kind != "f" or not array.size:
        return None
    first = array.reshape(-1)[0]
    return float(first) if bool((array == first).all()) else None
