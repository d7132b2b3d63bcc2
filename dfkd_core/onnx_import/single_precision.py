"""Rewriting of a model that computes in float64 to float32, in which the teacher is computed and compared."""

from onnx import ModelProto, TensorProto, numpy_helper

from dfkd_core.onnx_import.ir.parse import array_of

_TYPED = ("to", "dtype")  # attributes that name the element type of a result


def to_single_precision(model: ModelProto) -> None:
    """Replace float64 by float32 in the inputs, outputs, tensors and casts of a checked model, in place."""
    graph = model.graph
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    for tensor in graph.initializer:
        _narrow(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _narrow(attribute.t)
            if attribute.name in _TYPED and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT


def _narrow(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.DOUBLE:
        tensor.CopyFrom(numpy_helper.from_array(array_of(tensor), tensor.name))
