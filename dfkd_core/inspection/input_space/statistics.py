"""How far the statistics of what a network's layers see on some images are from those that its training left."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dfkd_core.inspection.input_space.forward import compute, is_computable, steps_towards
from dfkd_core.onnx_import.ir.plan import Array, Plan, Step

ELEMENT = 100.0  # multiply-adds that take as long as writing one value
FARTHEST = 6.0  # a shift in standard deviations, or a |log of a variance ratio|, counts as no more
FOLDED_VARIANCE = 0.5  # of what a BatchNorm puts out: the square of its scale, which training makes less than 1


@dataclass(frozen=True, slots=True)
class Expected:
    """The mean and variance, both (C,), that training left for the channels of a value (N, C, H, W)."""

    value: str
    mean: Array
    variance: Array

    def distance(self, values: Array) -> float:
        """Return how far the statistics of values (N, C, H, W) are.

        It is the mean over channels of the shift of the mean, in expected standard deviations, plus the |log of the
        variance ratio|.
        """
        with np.errstate(all="ignore"):
            mean = values.mean((0, 2, 3), dtype=np.float64)
            variance = values.var((0, 2, 3), dtype=np.float64)
            shift = np.abs(mean - self.mean) / np.sqrt(self.variance)
            ratio = np.abs(np.log((variance + 1e-8) / self.variance))
        far = (np.minimum(np.nan_to_num(one, nan=FARTHEST), FARTHEST) for one in (shift, ratio))
        return float(np.mean(np.sum([*far], 0)))


@dataclass(frozen=True, slots=True)
class StatisticsReader:
    """The first layers of a plan of which statistics are expected, and the steps that lead to them."""

    plan: Plan
    expected: tuple[Expected, ...]
    steps: tuple[Step, ...]

    def distance(self, images: Array) -> float:
        """Return the mean over layers of the distance of their statistics on images (N, C, H, W) from the expected.

        Raises:
            NotComputable: the layers cannot be computed here.
        """
        seen = compute(self.plan, self.steps, images, [one.value for one in self.expected])
        return float(np.mean([one.distance(seen[one.value]) for one in self.expected]))


def reader_of(plan: Plan, expected: Sequence[Expected], *, cost: float, layers: int) -> StatisticsReader | None:
    """Return a reader of as many layers as can be computed for one image at that cost, in multiply-adds.

    There are at most `layers` of them, the first ones of the plan; None if there is not even one.
    """
    found: StatisticsReader | None = None
    chosen: list[Expected] = []
    for one in expected:
        steps = steps_towards(plan, [*(earlier.value for earlier in chosen), one.value])
        if len(chosen) == layers or sum(step_cost(plan, step) for step in steps) > cost:
            break
        if all(is_computable(step) for step in steps):
            chosen.append(one)
            found = StatisticsReader(plan, tuple(chosen), tuple(steps))
    return found


def step_cost(plan: Plan, step: Step) -> float:
    """Return what a step costs for one image: its multiply-adds, and as many as its other work takes the time of."""
    written = sum(math.prod(plan.shapes[name]) for name in step.outputs if name in plan.shapes)
    window = math.prod(step.attributes["kernel"]) if step.op in ("MaxPool", "AveragePool") else 1
    return plan.macs_of(step) + ELEMENT * written * window


def kept_by_norms(plan: Plan) -> Iterator[Expected]:
    """Yield what the BatchNorm layers over maps (N, C, H, W) have kept of their inputs, in order."""
    for step in plan.steps:
        value = str(step.inputs[0]) if step.inputs else ""
        if step.op == "BatchNormalization" and len(plan.shapes[value]) == 4:
            mean, variance = (np.asarray(plan.constants[str(name)], np.float64) for name in step.inputs[3:5])
            yield Expected(value, mean, np.maximum(variance, 0) + step.attributes["epsilon"])


def left_by_folding(plan: Plan) -> Iterator[Expected]:
    """Yield what is usual of the outputs of BatchNorms, for convolutions that have a bias, as folded ones do.

    What a BatchNorm puts out has its bias as mean and its scale as standard deviation. Training leaves both small.
    """
    for step in plan.steps:
        if step.op == "Conv" and len(step.inputs) > 2 and len(plan.shapes[step.outputs[0]]) == 4:
            channels = plan.shapes[step.outputs[0]][1]
            yield Expected(step.outputs[0], np.zeros(channels), np.full(channels, FOLDED_VARIANCE))
