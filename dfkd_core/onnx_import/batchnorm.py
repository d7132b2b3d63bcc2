"""Detection of BatchNormalization: the plan still has it, or the exporter folded its statistics into convolutions."""

from typing import Literal

from dfkd_core.onnx_import.ir.plan import Plan, Step

BatchNormStatus = Literal["present", "partial", "folded", "none", "unknown"]


def batchnorm_of(plan: Plan) -> tuple[BatchNormStatus, int]:
    """Return the status, and the number of BatchNormalization steps whose output is (N, C, H, W).

    The name of a convolution's bias shows where the bias comes from. If it is stored beside its weight (`conv1.weight`,
    `conv1.bias`), the network had it. If the exporter invented the name, the bias was folded from statistics. If the
    names show neither, the status is "unknown".
    """
    norms = [step for step in plan.steps if step.op == "BatchNormalization"]
    present = sum(len(plan.shapes[step.outputs[0]]) == 4 for step in norms)
    normalised = {step.inputs[0] for step in norms}
    biases = {_origin(step) for step in plan.steps if _has_bias(step) and step.outputs[0] not in normalised}
    if present:
        return ("partial" if "folded" in biases else "present"), present
    if "folded" in biases:
        return "folded", 0
    return ("unknown" if "unknown" in biases else "none"), 0


def _has_bias(step: Step) -> bool:
    return step.op == "Conv" and len(step.inputs) > 2 and step.inputs[2] is not None


def _origin(step: Step) -> Literal["own", "folded", "unknown"]:
    weight, bias = str(step.inputs[1]), str(step.inputs[2])
    if weight.endswith("weight"):
        return "own" if bias == f"{weight.removesuffix('weight')}bias" else "folded"
    return "folded" if weight.startswith("onnx::Conv") else "unknown"
