"""The form of a graph's output: logits, probabilities or their logarithms; and the steps that give logits from it.

A softmax or sigmoid at the end is cut, because what enters it are the logits. Probabilities that are made otherwise,
such as a mean of several softmaxes, become logits by their logarithm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid
from dfkd_core.interface import OutputForm
from dfkd_core.onnx_import.ends.probabilities import Distributions
from dfkd_core.onnx_import.ends.second_class import CLIPPED, PairLogits
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import PASSING, Scaled, Shape, Step
from dfkd_core.onnx_import.ir.state import GraphState, GraphValue

SMALLEST = 1e-30  # probabilities below it count as this, so that their logarithm is finite
SMALLEST_REST = 1e-7  # the same for 1 - p of a single probability p, which float32 resolves no finer


@dataclass(slots=True)
class Head:
    """What a graph ends in."""

    output_form: OutputForm
    output_shape: Shape  # of one image, as the file returns it
    value: str  # the value of the graph from which the logits are made
    form: OutputForm  # what that value is: logits or probabilities
    shape: Shape  # of that value, for one image
    steps: list[Step] = field(default_factory=list)  # from that value to the logits (N, num_classes)
    logits: str = ""  # the name of the logits
    notes: list[str] = field(default_factory=list)  # what was changed
    is_reversed: bool = False  # the classes of the logits come in the other order than those of the value


def read_head(state: GraphState, steps: Mapping[str, Step], output: str) -> Head:
    """Return what the output is, and the steps that give logits (N, num_classes). `steps` makes each value.

    Raises:
        TeacherInvalid: the output is not one row of numbers for each image.
        OperatorUnsupported: the output holds independent probabilities.
    """
    output_shape = _image_shape(state, output)
    if output_shape is None or sum(size > 1 for size in output_shape) > 1 or 0 in output_shape:
        shown = list(state.values[output].shapes[0])
        raise TeacherInvalid(
            f"the output of the ONNX graph has shape {shown} for {state.batch_sizes[0]} images, not (N, classes)",
            hint="A teacher returns one row of logits or probabilities for each image.",
        )
    head = _uncut(state, steps, output, output_shape)
    _add_logits(state, head)
    return head


def _image_shape(state: GraphState, name: str) -> Shape | None:
    """Return the shape of a value for one image; None if its first axis is not the batch."""
    one, two = state.values[name].shapes
    if not one or (one[0], two[0]) != state.batch_sizes or one[1:] != two[1:]:
        return None
    return one[1:]


def _uncut(state: GraphState, steps: Mapping[str, Step], output: str, output_shape: Shape) -> Head:
    """Walk back from the output to the value from which logits are made."""
    count = int(np.prod(output_shape, dtype=np.int64))

    def back(name: str, *, clips: bool, count: int = count) -> str:
        """Return the earliest value with the same `count` numbers for each image as `name`."""
        while (step := steps.get(name)) is not None and (step.op in PASSING or (clips and _leaves(step))):
            source = str(step.inputs[0])
            shape = _image_shape(state, source) if source in state.values else None
            if shape is None or int(np.prod(shape, dtype=np.int64)) != count or sum(size > 1 for size in shape) > 1:
                break
            name = source
        return name

    def head(value: str, output_form: OutputForm, form: OutputForm, *notes: str) -> Head:
        shape = _image_shape(state, value)
        assert shape is not None
        return Head(output_form, output_shape, value, form, shape, notes=list(notes))

    def pair_head(pair: PairLogits) -> Head:
        value = back(pair.logits, clips=False, count=pair.count)
        found = head(value, "probabilities", "logits", "sigmoid-cut" if pair.count == 1 else "softmax-cut")
        return replace(found, is_reversed=pair.is_reversed)

    last = back(output, clips=True)
    step = steps.get(last)
    if step is not None and step.op in ("Softmax", "LogSoftmax"):
        _check_softmax(state, step, count)
        form: OutputForm = "probabilities" if step.op == "Softmax" else "log-probabilities"
        note = "softmax-cut" if step.op == "Softmax" else "log-softmax-cut"
        return head(back(str(step.inputs[0]), clips=False), form, "logits", note)
    if step is not None and step.op == "Sigmoid":
        if count > 1:
            raise _multi_label(step)
        return head(back(str(step.inputs[0]), clips=False), "probabilities", "logits", "sigmoid-cut")
    distributions = Distributions(steps, state)
    last = back(output, clips=False) if count == 1 else last
    pair = distributions.second_class.logits(last) if count == 1 else distributions.pair(last)
    if pair is not None and _image_shape(state, pair.logits) is not None:
        return pair_head(pair)
    scores = distributions.scores(last) if count > 1 else None
    if scores is not None and _image_shape(state, scores.logits) == _image_shape(state, last):
        note = "log-softmax-cut" if scores.form == "log-probabilities" else "softmax-cut"
        return head(back(scores.logits, clips=False), scores.form, "logits", note)
    if distributions.second_class.is_probability(last) if count == 1 else distributions.sums_to_one(last):
        return head(last, "probabilities", "probabilities", "log-of-probabilities")
    return head(back(output, clips=False), "logits", "logits")


def _leaves(step: Step) -> bool:
    """Return whether a step is a clip that leaves probabilities almost what they are."""
    return step.op == "Clip" and step.attributes["min"] <= CLIPPED and step.attributes["max"] >= 1 - CLIPPED


def _check_softmax(state: GraphState, step: Step, count: int) -> None:
    shape = state.values[step.outputs[0]].shapes[0]
    if shape[step.attributes["axis"]] != count or count == 1:
        raise TeacherInvalid(
            f"the softmax at the end of the ONNX graph ({readable(step.name)}) runs over an axis of one number, "
            "so all its results are 1",
            hint="Export the network without this softmax.",
        )


def _multi_label(step: Step) -> OperatorUnsupported:
    line = f"{readable(step.name)}: Sigmoid — ends the graph"
    return OperatorUnsupported(
        "the teacher returns independent probabilities: it is multi-label, and multi-label teachers are not served yet",
        nodes=[line],
        hint="Only teachers that choose one of several classes can be distilled.",
    )


def _add_logits(state: GraphState, head: Head) -> None:
    """Complete the head by the steps from its value to logits (N, num_classes)."""
    name, size = head.value, int(np.prod(head.shape, dtype=np.int64))
    prefix, title = head.value, f"(logits from {readable(head.value)})"

    def add(op: str, attributes: Mapping[str, object], *inputs: str) -> None:
        nonlocal name
        output = f"{prefix}/{op.lower()}/"
        head.steps.append(Step(op, title, inputs or (name,), (output,), attributes))
        name = output

    def add_log(smallest: float) -> str:
        add("Clip", {"min": smallest, "max": float("inf")})
        add("Log", {})
        return name

    if head.shape != (size,):
        add("Reshape", {"shape": (Scaled(1), size)})
    if head.form == "probabilities" and size == 1:  # log (1 - p) and log p
        one, chance = f"{head.value}/one/", name
        state.constants[one] = np.asarray(1, np.float32)
        state.values[one] = GraphValue(((), ()), (state.constants[one], state.constants[one]))
        log_chance = add_log(SMALLEST)
        prefix = f"{head.value}/rest"
        add("Sub", {}, one, chance)
        add("Concat", {"axis": 1}, add_log(SMALLEST_REST), log_chance)
    elif head.form == "probabilities":
        add_log(SMALLEST)
    elif size == 1:  # one number tells two classes apart: logits 0 and z
        add("Pad", {"mode": "constant", "pads": ((0, 0), (0, 1) if head.is_reversed else (1, 0)), "value": 0.0})
    elif head.is_reversed:
        add("Gather", {"axis": 1, "indices": list(range(size))[::-1]})
    if size == 1:
        head.notes.append("one-number-to-two-logits")
    if len(head.output_shape) != 1:
        head.notes.append("output-reshaped")
    head.logits = name
