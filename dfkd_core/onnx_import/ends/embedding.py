"""Recognition of an output that is scaled to length 1: an embedding, whose numbers stand for no classes."""

from collections.abc import Mapping

from dfkd_core.onnx_import.ir.plan import PASSING, Step
from dfkd_core.onnx_import.ir.state import GraphState

AROUND = {*PASSING, "Clip", "Expand", "Sqrt", "Max", "Add", "Pow", "Abs"}  # operations around a norm
SQUARES = ("Mul", "Pow")


def is_embedding(steps: Mapping[str, Step], state: GraphState, output: str) -> bool:
    """Return whether the output is a value divided by its own Euclidean length."""
    step = steps.get(output)
    while step is not None and step.op in PASSING:
        step = steps.get(str(step.inputs[0]))
    if step is None or step.op not in ("LpNormalization", "Div"):
        return False
    if step.op == "LpNormalization":
        return bool(step.attributes["p"] == 2)
    value, name = step.inputs[0], str(step.inputs[1])
    while (maker := steps.get(name)) is not None:
        if maker.op in ("ReduceL2", "ReduceSumSquare"):
            return maker.inputs[0] == value
        if maker.op == "ReduceSum":
            square = steps.get(str(maker.inputs[0]))
            return square is not None and square.op in SQUARES and square.inputs[0] == value
        depending = [str(one) for one in maker.inputs if one not in state.constants]
        if maker.op not in AROUND or len(depending) != 1:
            return False
        name = depending[0]
    return False
