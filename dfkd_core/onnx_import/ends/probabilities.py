"""Recognition of probabilities in a graph that no softmax ends: spelled-out softmaxes, means of distributions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dfkd_core.onnx_import.ends.second_class import MOST_VALUES, PairLogits, SecondClass, uniform
from dfkd_core.onnx_import.ir.plan import Step
from dfkd_core.onnx_import.ir.state import GraphState

TOLERANCE = 1e-3  # of the sum of probabilities
POSITIVE = {"Exp", "Relu", "Sigmoid", "Softplus", "Abs", "Softmax"}
SAME = {"Identity", "Cast"}
AROUND = {"Identity", "Cast", "Clip", "Expand", "Reshape", "Unsqueeze", "Squeeze"}  # operations around a denominator


@dataclass(frozen=True, slots=True)
class Scores:
    """The logits behind probabilities or log-probabilities."""

    logits: str
    form: Literal["probabilities", "log-probabilities"]


@dataclass(slots=True)
class Distributions:
    """Says of values whose last axis holds the classes whether they are probabilities. `steps` makes each value."""

    steps: Mapping[str, Step]
    state: GraphState
    known: dict[str, float | None] = field(default_factory=dict)
    second_class: SecondClass = field(init=False)

    def __post_init__(self) -> None:
        self.second_class = SecondClass(self.steps, self.state)

    def scores(self, name: str) -> Scores | None:
        """Return the logits behind a softmax that is spelled out: e^z / Σ e^z, exp(log_softmax z), log(softmax z)."""
        step = self._step(name)
        if step is None:
            return None
        inner = self._step(str(step.inputs[0])) if step.inputs else None
        if inner is not None and (step.op, inner.op) == ("Exp", "LogSoftmax") and self._over_classes(inner):
            return Scores(str(inner.inputs[0]), "probabilities")
        if inner is not None and (step.op, inner.op) == ("Log", "Softmax") and self._over_classes(inner):
            return Scores(str(inner.inputs[0]), "log-probabilities")
        if inner is not None and step.op == "Div" and inner.op == "Exp" and self._divides_by_sum(step):
            return Scores(self._unshifted(str(inner.inputs[0])), "probabilities")
        return None

    def pair(self, name: str) -> PairLogits | None:
        """Return the logit z behind the probabilities [1 - σ(z), σ(z)] of two classes, in either order, or None."""
        parts = self._complements(self._step(name))
        return None if parts is None else self.second_class.logits(parts[1])

    def sums_to_one(self, name: str) -> bool:
        """Return whether the graph shows that the value is never negative and its sum over the last axis is 1."""
        total = self._total(name)
        return total is not None and abs(total - 1) <= TOLERANCE

    def _step(self, name: str) -> Step | None:
        step = self.steps.get(name)
        while step is not None and step.op in SAME:
            step = self.steps.get(str(step.inputs[0]))
        return step

    def _rank(self, name: str) -> int:
        return len(self.state.values[name].shapes[0])

    def _over_classes(self, step: Step) -> bool:
        return bool(step.attributes["axis"] == self._rank(step.outputs[0]) - 1)

    def _total(self, name: str) -> float | None:
        """Return the sum over the last axis of a value that is never negative; None if the graph does not show it."""
        if name not in self.known:
            self.known[name] = None
            known = name in self.steps and len(self.known) <= MOST_VALUES
            self.known[name] = self._total_of(self.steps[name]) if known else None
        return self.known[name]

    def _complements(self, step: Step | None) -> tuple[str, str] | None:
        """Return the two numbers for each image that a step joins along the classes if one is 1 minus the other."""
        if step is None or step.op != "Concat" or len(step.inputs) != 2 or not self._over_classes(step):
            return None
        first, second = str(step.inputs[0]), str(step.inputs[1])
        one, two = self.second_class.affine(first), self.second_class.affine(second)
        if one is None or two is None or one.value != two.value:
            return None
        return (first, second) if (one.is_same and two.is_rest) or (one.is_rest and two.is_same) else None

    def _total_of(self, step: Step) -> float | None:
        totals = [None if name is None else self._total(name) for name in step.inputs]
        first = totals[0] if totals else None
        match step.op:
            case "Softmax":
                total = 1.0 if self._over_classes(step) else None
            case "Identity" | "Cast":
                total = first
            case "Exp":
                inner = self._step(str(step.inputs[0]))
                total = 1.0 if inner is not None and inner.op == "LogSoftmax" and self._over_classes(inner) else None
            case "Clip":
                total = first if step.attributes["min"] <= TOLERANCE and step.attributes["max"] >= 1 else None
            case "Mul" | "Div":
                total = self._scaled(step, totals)
            case "Concat" if (parts := self._complements(step)) is not None:
                total = 1.0 if all(map(self.second_class.is_bounded, parts)) else None
            case "Add" | "Sum" | "Mean":
                known = [one for one in totals if one is not None]
                count = len(known) if step.op == "Mean" else 1
                total = sum(known) / count if len(known) == len(totals) else None
            case _:
                total = self._stacked(step, first) if self._are_alike(totals) else None
        return total

    def _scaled(self, step: Step, totals: list[float | None]) -> float | None:
        """Return the total of a value that is divided by its own sum, or multiplied or divided by a constant."""
        if step.op == "Div" and self._divides_by_sum(step):
            numerator = self._step(str(step.inputs[0]))
            return 1.0 if numerator is not None and numerator.op in POSITIVE else None
        for at, total in enumerate(totals):
            factor = uniform(self.state.constants.get(str(step.inputs[1 - at])))
            if total is not None and factor is not None and factor > 0 and (step.op == "Mul" or at == 0):
                return total * factor if step.op == "Mul" else total / factor
        return None

    def _are_alike(self, totals: list[float | None]) -> bool:
        known = [total for total in totals if total is not None]
        return bool(known) and len(known) == len(totals) and max(known) - min(known) <= TOLERANCE

    def _stacked(self, step: Step, total: float | None) -> float | None:
        """Return the total of distributions that are stacked, cut or reduced along an axis other than the classes'."""
        source, last = str(step.inputs[0]), self._rank(step.outputs[0]) - 1
        shape = self.state.values[source].shapes[0]
        attributes = step.attributes
        match step.op:
            case "Unsqueeze":
                keeps = last not in attributes["axes"]
            case "Squeeze" | "ReduceMean" | "ReduceSum":
                keeps = len(shape) - 1 not in attributes["axes"]
            case "Slice":
                keeps = all(cut[0] != last for cut in attributes["cuts"])
            case "Concat":
                keeps = attributes["axis"] != last
            case _:
                keeps = False
        if not keeps or total is None:
            return None
        return total * math.prod(shape[axis] for axis in attributes["axes"]) if step.op == "ReduceSum" else total

    def _divides_by_sum(self, step: Step) -> bool:
        """Return whether a division is by the sum of its numerator over the last axis, or by that and an offset."""
        numerator, name = str(step.inputs[0]), str(step.inputs[1])
        while (maker := self.steps.get(name)) is not None:
            if maker.op == "ReduceSum":
                rank = self._rank(numerator)
                summed = self._step(str(maker.inputs[0]))
                bare = str(summed.inputs[0]) if summed is not None and summed.op == "Abs" else maker.inputs[0]
                return bare == numerator and tuple(maker.attributes["axes"]) == (rank - 1,)
            if maker.op == "Add":
                inner = [str(one) for one in maker.inputs if one not in self.state.constants]
                if len(inner) != 1:
                    return False
                name = inner[0]
            elif maker.op in AROUND:
                name = str(maker.inputs[0])
            else:
                return False
        return False

    def _unshifted(self, name: str) -> str:
        """Return the logits z behind z - max z, which exporters of spelled-out softmaxes subtract first."""
        step = self._step(name)
        if step is not None and step.op == "Sub":
            largest = self._step(str(step.inputs[1]))
            if largest is not None and largest.op == "ReduceMax" and largest.inputs[0] == step.inputs[0]:
                return str(step.inputs[0])
        return name
