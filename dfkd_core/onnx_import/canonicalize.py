"""Rewriting of a checked model to eval mode and one output; ONNX Runtime can still run the rewritten model.

Dropout becomes Identity. A BatchNormalization of images in training mode uses its stored statistics; whether it is one
is known once the constants are folded, so `specialize` asks for that.
"""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.onnx_import.advice import inference_hint, inputs_hint
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import Array
from dfkd_core.onnx_import.producer import exporter_of

SHOWN = 8  # inputs or outputs in a message
_SAME_VALUES = {"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast"}
_FOREIGN = {"Erfc": "Erf", "Expm1": "Exp"}  # erfc x = 1 - erf x, expm1 x = e^x - 1


def normalize(model: ModelProto) -> list[str]:
    """Remove Dropout and operators of TensorFlow from the graph in place, and return the names of the changes.

    Raises:
        OperatorUnsupported: the mask of a Dropout is used.
    """
    graph = model.graph
    used = used_names(model)
    exporter, _ = exporter_of(model)
    done = []
    if _rewrite_foreign(graph):
        done.append("tensorflow-operators-rewritten")
    if sum(_eval_dropout(node, used, exporter) for node in graph.node if node.op_type == "Dropout"):
        done.append("dropout-removed")
    return done


def _rewrite_foreign(graph: GraphProto) -> bool:
    """Rewrite, in place, operators of TensorFlow that ONNX lacks; return whether there was one.

    tf2onnx leaves them in its file: Erfc where a network of Keras has an exact GELU, Expm1 where it has a CELU.
    """
    nodes = list[NodeProto]()
    for node in graph.node:
        if node.op_type not in _FOREIGN or len(node.input) != 1 or len(node.output) != 1 or node.attribute:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
            continue
        inner, one = f"{node.output[0]}/inner/", f"{node.output[0]}/one/"
        operands = [one, inner] if node.op_type == "Erfc" else [inner, one]
        nodes.append(helper.make_node(_FOREIGN[node.op_type], list(node.input), [inner], name=inner))
        number = numpy_helper.from_array(np.asarray(1, np.float32))
        nodes.append(helper.make_node("Constant", [], [one], value=number))
        nodes.append(helper.make_node("Sub", operands, list(node.output), name=node.name))
    if len(nodes) == len(graph.node):
        return False
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def select_output(model: ModelProto, wanted: str | None) -> str | None:
    """Reduce the graph, in place, to one output and to the nodes that it needs.

    `wanted` names the output; it may be None if the graph has only one. Returns the name of another output that layers
    with weights compute from it, as a classifier computes its classes from its features; None where there is none.

    Raises:
        TeacherInvalid: the graph has several inputs or none, or no output.
        TeacherMismatch: the graph has several outputs and none is named, or none of the name.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise TeacherInvalid(
            f"the ONNX graph has {len(inputs)} inputs, not one: {_listed(inputs)}",
            hint=inputs_hint(exporter_of(model)[0]),
        )
    if not graph.output:
        raise TeacherInvalid("the ONNX graph has no output")
    chosen = [value for value in graph.output if wanted in (None, value.name)]
    if len(chosen) != 1:
        asked = "" if wanted is None else f", none of which is {readable(wanted)}"
        raise TeacherMismatch(
            f"the ONNX graph has {_counted(graph.output)}: {_listed(graph.output)}{asked}",
            hint="Name the one that holds the classes in teacher.output.",
            pointer="/teacher/output",
        )
    output = chosen[0]
    later = _computed_from(graph, output.name, stored)
    if len(graph.output) > 1:
        del graph.output[:]
        graph.output.append(output)
    _drop_unneeded(graph)
    return later


def _computed_from(graph: GraphProto, name: str, stored: set[str]) -> str | None:
    """Return the first other output that convolutions or matrix products with weights compute from the value `name`."""
    weights = stored | {made for node in graph.node if node.op_type == "Constant" for made in node.output}
    makers = {made: node for node in graph.node for made in node.output}
    passed, weighed = {name}, set[str]()  # what holds the value or follows from it, and what does after such layers
    while name in makers and makers[name].op_type in _SAME_VALUES and makers[name].input:
        name = makers[name].input[0]
        if name in passed:
            break  # a cycle, which is refused later
        passed.add(name)
    for node in graph.node:
        if weighed.intersection(node.input):
            weighed.update(node.output)
        elif passed.intersection(node.input):
            multiplies = node.op_type in ("Conv", "Gemm", "MatMul") and weights.intersection(node.input)
            (weighed if multiplies else passed).update(node.output)
    return next((value.name for value in graph.output if value.name in weighed), None)


def _counted(values: Sequence[ValueInfoProto]) -> str:
    return "1 output" if len(values) == 1 else f"{len(values)} outputs"


def _listed(values: Sequence[ValueInfoProto]) -> str:
    """Return names and declared shapes, for a message."""
    shown = []
    for value in values[:SHOWN]:
        dims = value.type.tensor_type.shape.dim
        sizes = [str(dim.dim_value) if dim.HasField("dim_value") else readable(dim.dim_param or "?") for dim in dims]
        shape = f" ({', '.join(sizes)})" if value.type.tensor_type.HasField("shape") else ""
        shown.append(f"{readable(value.name)}{shape}")
    return ", ".join(shown) + (", …" if len(values) > SHOWN else "")


def _drop_unneeded(graph: GraphProto) -> None:
    """Remove the nodes that the output does not need, such as those of other outputs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    if len(kept) < len(graph.node):
        copies = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
        del graph.node[:]
        graph.node.extend(copies)


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def _refuse(node: NodeProto, reason: str, exporter: str | None) -> OperatorUnsupported:
    line = f"{readable(node.name)}: {node.op_type} — {reason}"
    detail = f"the ONNX graph is in training mode: {line}"
    return OperatorUnsupported(detail, nodes=[line], hint=inference_hint(exporter))


def used_names(model: ModelProto) -> set[str]:
    """Return the names of the values that a node or the output of the graph uses."""
    return {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}


def eval_batchnorm(node: NodeProto, moments: list[Array | None], used: set[str], exporter: str | None) -> bool:
    """Rewrite, in place, a BatchNormalization of images to eval mode; False if it is in that mode already.

    `moments` are its mean and variance, None where they depend on the images; `used` names all values in use;
    `exporter` wrote the file.

    Raises:
        OperatorUnsupported: its batch statistics are used, or it has no running statistics.
    """
    training = bool(_attribute(node, "training_mode", 0))
    if not training and len(node.output) == 1:
        return False
    if any(name in used for name in node.output[1:]):
        raise _refuse(node, "its batch statistics are used", exporter)
    if training and _never_measured(moments):
        raise _refuse(node, "it has no running statistics", exporter)
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


def _eval_dropout(node: NodeProto, used: set[str], exporter: str | None) -> bool:
    if any(name in used for name in node.output[1:]):
        raise _refuse(node, "its mask is used", exporter)
    node.op_type = "Identity"
    del node.input[1:], node.output[1:], node.attribute[:]
    return True
