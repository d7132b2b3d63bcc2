"""Removal of transpositions that undo each other, as between images (N, C, H, W) and a graph of channels last."""

from dataclasses import replace

from dfkd_core.onnx_import.ir.plan import Step
from dfkd_core.onnx_import.ir.state import GraphState

KEEPING = ("Identity", "Cast")


def cancel_transposes(steps: list[Step], state: GraphState) -> list[Step]:
    """Return the steps with each transposition of a transposed value replaced by a single one, or by none."""
    makers: dict[str, Step] = {}
    changed: list[Step] = []
    for step in steps:
        new = _single(step, makers, state) if step.op == "Transpose" else step
        makers.update(dict.fromkeys(new.outputs, new))
        changed.append(new)
    return changed


def _single(step: Step, makers: dict[str, Step], state: GraphState) -> Step:
    """Return the transposition of the value before an earlier transposition, or `step` if there is none."""
    inner = makers.get(str(step.inputs[0]))
    while inner is not None and inner.op in KEEPING and inner.inputs[0] not in state.bool_values:
        inner = makers.get(str(inner.inputs[0]))
    if inner is None or inner.op != "Transpose":
        return step
    perm = tuple(inner.attributes["perm"][axis] for axis in step.attributes["perm"])
    if perm == tuple(range(len(perm))):
        return replace(step, op="Identity", inputs=inner.inputs, attributes={})
    return replace(step, inputs=inner.inputs, attributes={"perm": perm})
