"""Rewriting of a checked model to eval mode and logits; ONNX Runtime can still run the rewritten model.

Dropout becomes Identity, and a final softmax is cut. A BatchNormalization of images in training mode uses its stored
statistics; whether it is one is known once the constants are folded, so `specialize` asks for that.
"""

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import Array

PASSING = ("Identity", "Cast", "Flatten", "Reshape", "Squeeze")
EVAL_HINT = "Export in eval mode: call model.eval() and use training=torch.onnx.TrainingMode.PRESERVE or EVAL."


def normalize(model: ModelProto) -> list[str]:
    """Rewrite the model in place to a graph without Dropout that ends in logits, and return the names of the changes.

    Raises:
        OperatorUnsupported: the mask of a Dropout is used, or the graph ends in a sigmoid.
    """
    graph = model.graph
    used = used_names(model)
    done = []
    if sum(_eval_dropout(node, used) for node in graph.node if node.op_type == "Dropout"):
        done.append("dropout-removed")
    return done + _cut_softmax(graph)


def check_signature(model: ModelProto) -> None:
    """Check that the graph has one input and one output.

    Raises:
        TeacherInvalid: it has more, or none.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in stored]
    for what, names in (("inputs", inputs), ("outputs", [value.name for value in graph.output])):
        if len(names) != 1:
            shown = ", ".join(readable(name) for name in names[:5])
            raise TeacherInvalid(
                f"the ONNX graph has {len(names)} {what}, not one: {shown}",
                hint="A teacher takes one batch of images (N, C, H, W) and returns one batch of logits (N, classes).",
            )


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def _refuse(node: NodeProto, reason: str) -> OperatorUnsupported:
    line = f"{readable(node.name)}: {node.op_type} — {reason}"
    return OperatorUnsupported(f"the ONNX graph is in training mode: {line}", nodes=[line], hint=EVAL_HINT)


def used_names(model: ModelProto) -> set[str]:
    """Return the names of the values that a node or the output of the graph uses."""
    return {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}


def eval_batchnorm(node: NodeProto, moments: list[Array | None], used: set[str]) -> bool:
    """Rewrite, in place, a BatchNormalization of images to eval mode; False if it is in that mode already.

    `moments` are its mean and variance, None where they depend on the images; `used` names all values in use.

    Raises:
        OperatorUnsupported: its batch statistics are used, or it has no running statistics.
    """
    training = bool(_attribute(node, "training_mode", 0))
    if not training and len(node.output) == 1:
        return False
    if any(name in used for name in node.output[1:]):
        raise _refuse(node, "its batch statistics are used")
    if training and _never_measured(moments):
        raise _refuse(node, "it has no running statistics (track_running_stats=False)")
    del node.output[1:]
    kept = [entry for entry in node.attribute if entry.name != "training_mode"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return True


def _never_measured(moments: list[Array | None]) -> bool:
    """Return whether all means are 0 and all variances 1, as exporters write for layers without running statistics."""
    known = [array for array in moments if array is not None]
    if len(known) < 2:
        return True
    mean, variance = known
    return bool(np.all(mean == 0) and np.all(variance == 1))


def _eval_dropout(node: NodeProto, used: set[str]) -> bool:
    if any(name in used for name in node.output[1:]):
        raise _refuse(node, "its mask is used")
    node.op_type = "Identity"
    del node.input[1:], node.output[1:], node.attribute[:]
    return True


def _cut_softmax(graph: GraphProto) -> list[str]:
    """Replace the softmax at the end of the graph by Identity; only nodes that change no number may follow it.

    Raises:
        OperatorUnsupported: the graph ends in a sigmoid.
    """
    makers = {name: node for node in graph.node for name in node.output}
    uses = [name for node in graph.node for name in node.input]
    name = graph.output[0].name
    while (node := makers.get(name)) is not None:
        if node.op_type in ("Softmax", "LogSoftmax") and _attribute(node, "axis", -1) in (1, -1):
            done = "softmax-cut" if node.op_type == "Softmax" else "log-softmax-cut"
            node.op_type = "Identity"
            del node.attribute[:]
            return [done]
        if node.op_type == "Sigmoid":
            line = f"{readable(node.name)}: Sigmoid — ends the graph"
            raise OperatorUnsupported(
                "the teacher returns independent probabilities (multi-label), not logits of one class",
                nodes=[line],
                hint="Export the network without its last sigmoid.",
            )
        if node.op_type not in PASSING or uses.count(name) > 0 or not node.input:
            return []
        name = node.input[0]
    return []
