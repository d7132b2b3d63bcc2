"""Detection of BatchNormalization: the plan has it, or it left traces where an exporter or optimiser folded it.

Traces are what PyTorch's exporters, tf2onnx, Keras, Paddle, ONNX Runtime and onnxslim are known to leave: names,
metadata of nodes, and the arithmetic of a layer that is spelled out. Where there is no trace, the network had none only
if nothing can hide one: a folded layer leaves a bias, and both exporters of PyTorch tell the bias that a convolution
had of its own. In all other cases nobody can tell.
"""

import re
from collections.abc import Mapping
from typing import Literal

from onnx import ModelProto

from dfkd_core.onnx_import.ir.plan import PASSING, Plan, Shape, Step
from dfkd_core.onnx_import.producer import HIERARCHY, LEGACY, exporter_of

BatchNormStatus = Literal["present", "partial", "folded", "none", "unknown"]
Origin = Literal["own", "folded", "unknown"]

RULE = "pkg.onnxscript.rewriter.rule_name"  # key of the rules that merged nodes, in the metadata of the newer exporter
_NAMES = re.compile(r"batch_?norm|fused_?bn|bn_?fus|(running|moving)_(mean|var)", re.IGNORECASE)
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_MOVING = {*PASSING, "Transpose"}


def batchnorm_of(plan: Plan, model: ModelProto) -> tuple[BatchNormStatus, int]:
    """Return the status, and the number of BatchNormalization steps whose output is (N, C, H, W)."""
    norms = [step for step in plan.steps if step.op == "BatchNormalization"]
    present = sum(len(plan.shapes[step.outputs[0]]) == 4 for step in norms)
    normalised = {step.inputs[0] for step in norms}
    metadata = {
        name: {entry.key: entry.value for entry in node.metadata_props if entry.key in (HIERARCHY, RULE)}
        for node in model.graph.node
        for name in node.output
    }
    biased = [step for step in plan.steps if _has_bias(step) and step.outputs[0] not in normalised]
    exporter, _ = exporter_of(model)
    origins = {_origin(step, metadata.get(step.outputs[0], {}), exporter) for step in biased}
    folded = "folded" in origins or any(_spelled_out(plan))
    if present:
        return ("partial" if folded else "present"), present
    if folded:
        return "folded", 0
    return ("unknown" if "unknown" in origins else "none"), 0


def _has_bias(step: Step) -> bool:
    return step.op in _CONVOLUTIONS and len(step.inputs) > 2 and step.inputs[2] is not None


def _origin(step: Step, metadata: Mapping[str, str], exporter: str | None) -> Origin:
    """Return where the bias of a convolution comes from: the network's own, folded statistics, or nobody knows.

    The dynamo exporter leaves the rule that merged two nodes and the classes of the modules that a node comes from. It
    names a bias that it makes `conv.weight_bias`. The legacy exporter invents names for weight and bias where it folds
    (`onnx::Conv_12`), and keeps the network's (`conv.bias`) elsewhere.
    """
    weight, bias = str(step.inputs[1]), str(step.inputs[2])
    told = " ".join((step.name, *step.outputs, weight, bias, metadata.get(RULE, "")))
    if _NAMES.search(told) or _NAMES.search(_innermost(metadata.get(HIERARCHY, ""))) or bias == f"{weight}_bias":
        return "folded"
    if weight.startswith("onnx::Conv") and not bias.endswith("bias"):
        return "folded"
    known = HIERARCHY in metadata or (exporter == LEGACY and bias.endswith("bias"))
    return "own" if known else "unknown"


def _innermost(hierarchy: str) -> str:
    """Return the class of the innermost module in a list such as "['nets.Net', 'torch.nn.BatchNorm2d', 'aten.add']"."""
    classes = re.findall(r"'([^']*)'", hierarchy)
    return classes[-2] if len(classes) > 1 else ""


def _spelled_out(plan: Plan) -> list[Step]:
    """Return the last steps of BatchNorms that are written as arithmetic with one constant for each channel.

    (x - mean) · scale + bias, as Keras writes it, is one wherever it stands, except at the images, which it scales.
    x · scale + bias is one behind a convolution, or where names say so; elsewhere it can be a learned scale.
    """
    makers = {name: step for step in plan.steps for name in step.outputs}
    found = []
    for step in plan.steps:
        if step.op not in ("Add", "Sub"):
            continue
        scaled = _maker(plan, makers, step)
        if scaled is None or scaled.op not in ("Mul", "Div"):
            continue
        before = _maker(plan, makers, scaled)
        if before is None:
            continue
        centred = before.op in ("Sub", "Add") and _maker(plan, makers, before) is not None
        named = _NAMES.search(" ".join((step.name, *step.outputs, scaled.name, *scaled.outputs)))
        if centred or named or before.op in _CONVOLUTIONS:
            found.append(step)
    return found


def _maker(plan: Plan, makers: Mapping[str, Step], step: Step) -> Step | None:
    """Return the step that makes the data which `step` joins with a constant for each channel, else None.

    Steps between the two that move numbers are skipped. The images have no maker.
    """
    constants = [name for name in step.inputs if name in plan.constants]
    data = [name for name in step.inputs if name not in plan.constants]
    if len(constants) != 1 or len(data) != 1 or not _for_each_channel(plan.constants[str(constants[0])].shape):
        return None
    maker = makers.get(str(data[0]))
    while maker is not None and maker.op in _MOVING:
        maker = makers.get(str(maker.inputs[0]))
    return maker


def _for_each_channel(shape: Shape) -> bool:
    return sum(size > 1 for size in shape) == 1
