"""Evidence, in an ONNX graph, of where its images have their channels; no size is looked at."""

from onnx import GraphProto, NodeProto

from dfkd_core.interface import Layout

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
    exporters of TensorFlow and Keras write it. Operators that keep the axes may lie before either.
    """
    reached, found = {name}, set[Layout]()
    for node in graph.node:
        if not reached.intersection(node.input):
            continue
        if node.op_type in CHANNELS_FIRST and node.input[0] in reached:
            found.add("NCHW")
        elif node.op_type == "Transpose":
            turn = TURNS.get(_permutation(node))
            found.update([turn] if turn else [])
        elif node.op_type in KEEPING:
            reached.update(node.output)
    return found.pop() if len(found) == 1 else None


def _permutation(node: NodeProto) -> tuple[int, ...]:
    return next((tuple(entry.ints) for entry in node.attribute if entry.name == "perm"), ())
