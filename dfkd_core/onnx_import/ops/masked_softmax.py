"""The softmax with a boolean mask, as PyTorch's exporter writes it: Softmax, IsNaN, and a Where that puts 0 for NaN.

A row that is masked completely has the scores minus infinity and the softmax NaN. The Where hides the NaN, but not its
gradient. The three steps become one, SafeSoftmax, whose gradient is 0 there.
"""

from dfkd_core.onnx_import.ir.plan import Step
from dfkd_core.onnx_import.ir.state import GraphState


def fuse_masked_softmax(state: GraphState) -> None:
    """Replace each Where(IsNaN(s), 0, s) of a softmax s by SafeSoftmax; `assemble` drops the steps left unused."""
    makers = {name: step for step in state.steps for name in step.outputs}
    state.steps = [_fused(state, step, makers) for step in state.steps]


def _fused(state: GraphState, step: Step, makers: dict[str, Step]) -> Step:
    if step.op != "Where":
        return step
    condition, filler, scores = step.inputs
    test, softmax = makers.get(str(condition)), makers.get(str(scores))
    if test is None or softmax is None or test.op != "IsNaN" or softmax.op != "Softmax" or test.inputs != (scores,):
        return step
    zero = state.constants.get(str(filler))
    if zero is None or zero.any() or state.values[step.outputs[0]].shapes != state.values[str(scores)].shapes:
        return step
    return Step("SafeSoftmax", step.name, softmax.inputs, step.outputs, softmax.attributes)
