"""Rewriting of a convolution at the end of a graph as a linear layer, whose input can be read as features.

A mean over all pixels commutes with a 1 x 1 convolution, so such a head becomes a pooling and a linear layer. A
convolution over its whole input is a linear layer of the flattened input.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dfkd_core.onnx_import.ends.output_form import Head
from dfkd_core.onnx_import.ir.plan import PASSING, Scaled, Step
from dfkd_core.onnx_import.ir.state import GraphState

PIXELS = (2, 3)  # the axes of a value (N, C, H, W) that a convolution slides along


def with_linear_head(state: GraphState, steps: Sequence[Step], head: Head) -> list[Step]:
    """Return the steps up to the head's value, or to its rows; a linear layer makes them if a convolution did.

    The head holds logits, and its steps begin with a reshape unless its value has rows already.
    """
    makers = {name: step for step in steps for name in step.outputs}
    found = _convolution(state, steps, makers, head)
    if found is None:
        return list(steps)
    convolution, pooled = found
    source, prefix = str(convolution.inputs[0]), f"{head.value}/head/"
    channels, *sizes = state.values[source].shapes[0][1:]
    name, made = source, list[Step]()

    def add(op: str, attributes: Mapping[str, object], shape: tuple[int, ...], *weights: str | None) -> None:
        nonlocal name
        output = f"{prefix}{len(made)}/"
        made.append(Step(op, convolution.name, (name, *weights), (output,), attributes))
        state.declare(output, shape)
        name = output

    if pooled:
        add("ReduceMean", {"axes": PIXELS, "keepdims": True}, (channels, 1, 1))
        sizes = [1, 1]
    features = channels * sizes[0] * sizes[1]
    add("Reshape", {"shape": (Scaled(1), features)}, (features,))
    kernel = str(convolution.inputs[1])
    matrix = f"{kernel}/matrix/"
    state.derive(matrix, state.constants[kernel].reshape(-1, features), source=kernel)
    outputs, last = len(state.constants[matrix]), head.value
    product = {"flip_a": False, "flip_b": True, "alpha": 1.0, "beta": 1.0}
    add("Gemm", product, (outputs,), matrix, *convolution.inputs[2:])
    if outputs > 1 and head.shape != (outputs,):
        last = head.steps.pop(0).outputs[0]  # it made rows of the head's value
    elif head.shape != (outputs,):
        add("Reshape", {"shape": (Scaled(1), *head.shape)}, head.shape)
    made[-1] = replace(made[-1], outputs=(last,))
    state.declare(last, head.shape if last == head.value else (outputs,))
    head.notes.append("convolution-head-to-linear")
    return [*(step for step in steps if head.value not in step.outputs), *made]


def _convolution(
    state: GraphState, steps: Sequence[Step], makers: Mapping[str, Step], head: Head
) -> tuple[Step, bool] | None:
    """Return the convolution that makes the head's value, and whether a mean over all pixels lies between them."""
    uses = Counter(name for step in steps for name in step.inputs if name)
    name, pooled, path = head.value, False, list[Step]()
    while (step := makers.get(name)) is not None and step.op != "Conv":
        if step.op not in ("ReduceMean", "AveragePool", "Transpose", *PASSING):
            return None
        path.append(step)
        name = str(step.inputs[0])
        if uses[name] != 1:
            return None
    if step is None or not _is_constant(state, step):
        return None
    axis: int | None = 1
    for later in reversed(path):
        axis = _channels_after(state, later, axis)
        pooled = pooled or later.op in ("ReduceMean", "AveragePool")
    if axis is None:
        return None
    shape, pads = state.values[str(step.inputs[0])].shapes[0], step.attributes["pads"]
    is_plain = step.attributes["group"] == 1 and not any(before or after for before, after in pads)
    if pooled:
        is_linear = set(step.attributes["kernel"]) == {1} and set(step.attributes["strides"]) == {1}
    else:
        is_linear = tuple(step.attributes["kernel"]) == shape[2:]
    return (step, pooled) if is_plain and is_linear and len(shape) == 4 else None


def _is_constant(state: GraphState, step: Step) -> bool:
    return all(name is None or name in state.constants for name in step.inputs[1:])


def _channels_after(state: GraphState, step: Step, axis: int | None) -> int | None:
    """Return the axis of the channels behind a step; None if it is lost, or pixels do not all weigh alike."""
    before, after = (state.values[name].shapes[0] for name in (str(step.inputs[0]), step.outputs[0]))
    if axis is None:
        return None
    match step.op:
        case "ReduceMean":
            axes = step.attributes["axes"]
            gone = 0 if step.attributes["keepdims"] else sum(other < axis for other in axes)
            return None if axis in axes or 0 in axes else axis - gone
        case "AveragePool":
            whole = tuple(step.attributes["kernel"]) == before[2:] and set(after[2:]) == {1}
            return axis if axis == 1 and whole and not any(map(any, step.attributes["pads"])) else None
        case "Transpose":
            return int(step.attributes["perm"].index(axis))
    keeps = axis < len(after) and before[: axis + 1] == after[: axis + 1]
    return axis if keeps else None
