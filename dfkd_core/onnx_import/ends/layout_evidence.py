"""Evidence, in an ONNX graph, of where its images have their channels; it is never guessed from sizes."""

from onnx import GraphProto, NodeProto, TensorProto

from dfkd_core.interface import Layout
from dfkd_core.onnx_import.ir.parse import array_of

CHANNELS_FIRST = {  # operators whose axis 1 holds the channels
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth"),
    "ConvInteger",
}
KEEPING = {  # operators that keep the order of the axes
    *("Identity", "Cast", "CastLike", "Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Clip", "Max", "Min"),
    *("Pad", "Slice", "Gather", "Concat", "Resize", "Upsample", "Tile", "Expand", "Dropout", "Relu", "Sum", "Where"),
    *("QuantizeLinear", "DequantizeLinear"),
}
TURNS: dict[tuple[int, ...], Layout] = {(0, 3, 1, 2): "NHWC", (0, 2, 3, 1): "NCHW"}


def layout_of(graph: GraphProto, name: str) -> Layout | None:
    """Return the layout of the 4-dimensional input `name`; None if the graph does not show it, or shows both.

    A convolution over the images shows NCHW. A transposition that brings the last axis to the front shows NHWC; the
    exporters of TensorFlow and Keras write it, or for a single channel the Reshape (N, H, W, 1) → (N, 1, H, W).
    Operators that keep the axes may lie before either.
    """
    reached, found = {name}, set[Layout]()
    grey = _grey_size(graph, name)
    for node in graph.node:
        if not reached.intersection(node.input):
            continue
        if node.op_type in CHANNELS_FIRST and node.input[0] in reached:
            found.add("NCHW")
        elif node.op_type == "Transpose":
            turn = TURNS.get(_permutation(node))
            found.update([turn] if turn else [])
        elif node.op_type == "Reshape" and grey is not None and _target(graph, node)[1:] == (1, *grey):
            found.add("NHWC")
        elif node.op_type in KEEPING:
            reached.update(node.output)
    return found.pop() if len(found) == 1 else None


def _permutation(node: NodeProto) -> tuple[int, ...]:
    return next((tuple(entry.ints) for entry in node.attribute if entry.name == "perm"), ())


def _grey_size(graph: GraphProto, name: str) -> tuple[int, int] | None:
    """Return height and width of an input that is declared as (N, height, width, 1), else None."""
    dims = next(value.type.tensor_type.shape.dim for value in graph.input if value.name == name)
    sizes = [int(dim.dim_value) for dim in dims]
    return (sizes[1], sizes[2]) if len(sizes) == 4 and sizes[3] == 1 and min(sizes[1:]) > 0 else None


def _target(graph: GraphProto, node: NodeProto) -> tuple[int, ...]:
    """Return the shape that a Reshape gives, if it is a constant; () if it is not."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for other in graph.node:
        if other.op_type == "Constant" and other.attribute and other.attribute[0].name == "value":
            tensors[other.output[0]] = other.attribute[0].t
    tensor = tensors.get(node.input[1]) if len(node.input) > 1 else None
    if tensor is None or tensor.data_type != TensorProto.INT64:
        return ()
    return tuple(int(size) for size in array_of(tensor).reshape(-1))
