"""ONNX models that no exporter writes: broken, hostile, oversized, or merely strange."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from tests.dfkd_core.onnx_models import classifier, flattened, node

Change = Callable[[ModelProto], object]
Content = bytes | Callable[[], bytes]
"""A file, or how to make a large one."""


def changed(change: Change) -> bytes:
    """The classifier after this was done to it."""
    made = classifier()
    change(made)
    return stored(made)


def stored(made: ModelProto) -> bytes:
    content: bytes = made.SerializeToString()
    return content


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def external(tensor: TensorProto, **entries: str) -> TensorProto:
    """The tensor with its bytes elsewhere."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def externally(**entries: str) -> bytes:
    return changed(lambda made: external(made.graph.initializer[0], **entries))


def outside() -> TensorProto:
    return external(TensorProto(name="canary", data_type=1, dims=[4]), location="../canary.bin")


def hiding(attribute: AttributeProto) -> bytes:
    """Something hidden in an attribute of a Relu."""
    return changed(lambda made: made.graph.node[1].attribute.append(attribute))


def nested(depth: int) -> bytes:
    """Graphs in attributes of nodes in graphs, written by hand: libraries refuse to build what they refuse to read."""
    graph = b""
    for _ in range(depth):
        branch = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(4, b"If") + field(5, branch))
    return in_graph(graph)


def functions(depth: int, *, recursive: bool = False) -> bytes:
    """Local functions, each calling the next twice; the last calls the first where they are recursive."""
    made = classifier()
    for level in range(depth):
        callee = "f0" if recursive and level == depth - 1 else f"f{level + 1}"
        nodes = [helper.make_node(callee, [name], [out], domain="local") for name, out in (("x", "y"), ("y", "z"))]
        if level == depth - 1 and not recursive:
            nodes = [helper.make_node("Relu", ["x"], ["z"])]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        made.functions.append(helper.make_function("local", f"f{level}", ["x"], ["z"], nodes, opsets))
    made.opset_import.append(helper.make_opsetid("local", 1))
    made.graph.node.append(helper.make_node("f0", ["logits"], ["more"], domain="local"))
    return stored(made)


def control(op: str, inputs: list[str], **attributes: Any) -> bytes:
    """A node that runs a graph of its own."""
    body = helper.make_graph([], "body", [], [])
    named = {name: body if value == "body" else value for name, value in attributes.items()}
    nodes = [helper.make_node(op, inputs, ["out"], name="loop", **named)]
    return stored(flattened(nodes, {"trips": np.array(2**60), "yes": np.array(True)}))


HUGE = np.array([1, 1, 2**20, 2**20])


def asks_for_much(*nodes: Any, **constants: Any) -> bytes:
    return stored(flattened(list(nodes), {"huge": HUGE, **constants}))


def in_graph(*fields: bytes) -> bytes:
    """A model with one graph made of these fields."""
    return b"\x08\x09" + field(8, b"\x10\x12") + field(7, b"".join(fields))


def typed(data_type: int, **values: Any) -> bytes:
    """A weight of another type."""

    def change(made: ModelProto) -> None:
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_type = data_type
        for name, content in values.items():
            getattr(tensor, name).extend(content) if isinstance(content, list) else setattr(tensor, name, content)

    return changed(change)


def half() -> bytes:
    """A model in float16 throughout."""
    made = classifier(element=TensorProto.FLOAT16)
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return stored(made)


def chain(length: int) -> bytes:
    """A classifier behind a long chain of nodes that do nothing."""
    nodes = [node("Identity", ["scores" if at == 0 else f"i{at - 1}"], [f"i{at}"]) for at in range(length)]
    return stored(classifier([*nodes, node("Identity", [f"i{length - 1}"], ["logits"])]))


def with_metadata(size: int) -> bytes:
    made = classifier()
    for key, value in {"path": "/srv/canary/models", "html": "<script>canary</script>", "much": "x" * size}.items():
        made.metadata_props.add(key=key, value=value)
    made.producer_name, made.doc_string, made.graph.doc_string = "canary", "canary" * 9, "/etc/passwd"
    for entry in made.graph.node:
        entry.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /srv/canary/model.py")
    return stored(made)


def fixed_batch() -> bytes:
    return stored(classifier(shape=[7, 4, 4, 6]))
