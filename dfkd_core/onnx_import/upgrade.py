"""Old files are brought up to what the importer reads: their IR version, their inputs and their operator set.

The conversion is that of onnx.version_converter. It gets the graph without its large tensors, so that it copies little.
"""

import math

from onnx import ModelProto, helper, shape_inference, version_converter

from dfkd_core.errors import TeacherInvalid
from dfkd_core.onnx_import.advice import opset_hint
from dfkd_core.onnx_import.ir.parse import check_model, check_nodes, opset_of
from dfkd_core.onnx_import.operators import check_operators
from dfkd_core.onnx_import.producer import exporter_of

OLDEST_OPSET = 9  # operators of older sets differ in their inputs and attributes from what the importer's rules read
OLDEST_IR_VERSION = 4  # from here on, initializers need not be inputs of the graph
BROADCAST_SINCE = 7  # in older sets `axis` says where the second operand of an operator begins
ALIGNED = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", "PRelu")
SMALL = 1024  # elements of a tensor that the converter may look at: scales, axes, shapes


def upgrade(model: ModelProto) -> list[str]:
    """Bring a checked model up to date in place; return the names of the changes.

    Raises:
        OperatorUnsupported: the importer takes some operators in no set.
        TeacherInvalid: an operator of an old set has no form in a newer one.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    for at in reversed(range(len(graph.input))):
        if graph.input[at].name in stored:  # the default of an input, which nobody will give
            del graph.input[at]
    model.ir_version = max(model.ir_version, OLDEST_IR_VERSION)
    opset = opset_of(model)
    if opset >= OLDEST_OPSET:
        return []
    check_operators(model, removed=("Dropout",))  # lists all unknown ones; the converter would stop at the first
    converted = _converted(model, opset)
    del graph.node[:]
    graph.node.extend(converted.graph.node)
    graph.initializer.extend(tensor for tensor in converted.graph.initializer if tensor.name not in stored)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OLDEST_OPSET))
    check_model(model)
    check_nodes(model)
    return ["opset-upgraded"]


def _converted(model: ModelProto, opset: int) -> ModelProto:
    """Return the graph in the oldest operator set that is read; tensors that are not small are inputs of it."""
    bare = ModelProto(ir_version=model.ir_version, opset_import=[helper.make_opsetid("", opset)])
    graph = bare.graph
    graph.name = "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        if opset < BROADCAST_SINCE:
            _align_operands(bare)
        return version_converter.convert_version(bare, OLDEST_OPSET)
    except Exception as error:  # the converter, which is C++, raises several classes without a common one
        raise TeacherInvalid(
            f"the operators of opset {opset} cannot be brought up to opset {OLDEST_OPSET}",
            hint=opset_hint(exporter_of(model)[0]),
        ) from error


def _align_operands(model: ModelProto) -> None:
    """Append axes of size 1 to second operands, so that newer sets broadcast them as `axis` says; changes the model.

    A PRelu has one slope for each channel (axis 1). The converter of onnx 1.23 inserts too many axes. It also wants a
    number of images, which is 1 from here on where the file leaves it open.
    """
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.dim_value = dim.dim_value or 1
    graph = shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    ranks |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for number, node in enumerate(nodes):
        axis = next((one for one in node.attribute if one.name == "axis"), None)
        if node.op_type in ALIGNED and (axis is not None or node.op_type == "PRelu"):
            rank, own = (ranks[name] for name in node.input[:2])
            start = 1 if axis is None else axis.i
            behind = rank - own - (start if start >= 0 else start + rank)
            if behind > 0 and (axis is not None or own == 1):
                name = f"{node.input[1]}/aligned/{number}/"
                axes = list(range(own, own + behind))
                model.graph.node.append(helper.make_node("Unsqueeze", [node.input[1]], [name], axes=axes))
                node.input[1] = name
            if axis is not None:
                node.attribute.remove(axis)
        model.graph.node.append(node)
