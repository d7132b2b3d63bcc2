"""Removal of operations that change nothing: casts among real numbers, and transpositions that undo each other.

Exporters of Keras write a cast behind every layer. Transpositions meet between images (N, C, H, W) and a graph that
takes channels last, and between the layers of such a graph.
"""

from collections.abc import Iterable
from dataclasses import replace

from dfkd_core.onnx_import.ir.plan import Step
from dfkd_core.onnx_import.ir.state import GraphState


def drop_no_operations(steps: Iterable[Step], state: GraphState, output: str) -> tuple[list[Step], str]:
    """Return the steps without operations that change nothing, and the name of the value that `output` is."""
    same: dict[str, str] = {}  # a value that was removed → the equal value that stays
    makers: dict[str, Step] = {}
    kept: list[Step] = []
    for original in steps:
        step = replace(original, inputs=tuple(name and same.get(name, name) for name in original.inputs))
        if step.op == "Transpose":
            step = _single(step, makers)
        if step.op == "Identity" or (step.op == "Cast" and step.inputs[0] not in state.bool_values):
            same[step.outputs[0]] = str(step.inputs[0])
            continue
        makers.update(dict.fromkeys(step.outputs, step))
        kept.append(step)
    return kept, same.get(output, output)


def _single(step: Step, makers: dict[str, Step]) -> Step:
    """Return the transposition of the value before an earlier transposition, or `step` if there is none."""
    inner = makers.get(str(step.inputs[0]))
    if inner is None or inner.op != "Transpose":
        return step
    perm = tuple(inner.attributes["perm"][axis] for axis in step.attributes["perm"])
    if perm == tuple(range(len(perm))):
        return replace(step, op="Identity", inputs=inner.inputs, attributes={})
    return replace(step, inputs=inner.inputs, attributes={"perm": perm})
