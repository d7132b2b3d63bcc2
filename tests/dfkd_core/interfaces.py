"""Small ONNX classifiers that take and return what people's files take and return, and ONNX Runtime on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIDE = 8
CLASSES = 4


def node(op: str, inputs: Sequence[str], output: str, **attributes: object) -> NodeProto:
    """One node with one output, named after it."""
    return helper.make_node(op, list(inputs), [output], name=output, **attributes)


def classifier(
    *,
    before: Sequence[NodeProto] = (),
    after: Sequence[NodeProto] = (),
    constants: Mapping[str, np.ndarray] | None = None,
    dims: Sequence[int | str | None] | None = ("N", 3, SIDE, SIDE),
    element: int = TensorProto.FLOAT,
    outputs: Mapping[str, Sequence[int | str]] | None = None,
    output_element: int = TensorProto.FLOAT,
    classes: int = CLASSES,
    channels: int = 3,
    names: tuple[str, str] = ("x", "y"),
    opset: int = 18,
) -> ModelProto:
    """Two convolutions and a linear layer: `before` makes `images` of the input, `after` makes the outputs of `scores`.

    Without `before` the input is what the convolution takes; without `after` the output is what the linear layer gives.
    """
    rng = np.random.default_rng(3)

    def weights(*shape: int, gain: float = 1.6) -> np.ndarray:
        return (rng.standard_normal(shape) * gain / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    stored = {
        "w1": weights(12, channels, 3, 3),
        "b1": rng.standard_normal(12).astype(np.float32) * 0.1,
        "w2": weights(24, 12, 3, 3),
        "w3": weights(classes, 24, gain=9.0),
        "b3": np.zeros(classes, np.float32),
        **(constants or {}),
    }
    images, scores = ("images" if before else names[0]), ("scores" if after else names[1])
    nodes = [
        *before,
        node("Conv", [images, "w1", "b1"], "c1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1"),
        node("Conv", ["r1", "w2"], "c2", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c2"], "r2"),
        node("GlobalAveragePool", ["r2"], "pooled"),
        node("Flatten", ["pooled"], "f"),
        node("Gemm", ["f", "w3", "b3"], scores, transB=1),
        *after,
    ]
    declared = outputs or {names[1]: ("N", classes)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(names[0], element, None if dims is None else list(dims))],
        [helper.make_tensor_value_info(name, output_element, list(shape)) for name, shape in declared.items()],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def channels_last(**options: object) -> ModelProto:
    """Images (N, H, W, C) and the leading transposition that exporters of TensorFlow and Keras write."""
    turn = node("Transpose", ["x"], "images", perm=[0, 3, 1, 2])
    return classifier(before=[turn], dims=("N", SIDE, SIDE, 3), **options)  # type: ignore[arg-type]


def pixels(layout: str, **options: object) -> ModelProto:
    """uint8 images, cast and normalised inside."""
    turn = [node("Transpose", ["x"], "turned", perm=[0, 3, 1, 2])] if layout == "NHWC" else []
    before = [
        *turn,
        node("Cast", ["turned" if turn else "x"], "real", to=TensorProto.FLOAT),
        node("Div", ["real", "most"], "unit"),
        node("Sub", ["unit", "mean"], "centred"),
        node("Div", ["centred", "std"], "images"),
    ]
    stored = {
        "most": np.float32(255),
        "mean": np.array([0.5, 0.4, 0.3], np.float32).reshape(3, 1, 1),
        "std": np.array([0.2, 0.25, 0.3], np.float32).reshape(3, 1, 1),
    }
    dims = ("N", SIDE, SIDE, 3) if layout == "NHWC" else ("N", 3, SIDE, SIDE)
    return classifier(before=before, constants=stored, dims=dims, element=TensorProto.UINT8, **options)  # type: ignore[arg-type]


def doubles() -> ModelProto:
    """Everything in float64, for which ONNX Runtime has no convolution."""
    made = classifier(element=TensorProto.DOUBLE, output_element=TensorProto.DOUBLE)
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    return made


def binary(*, sigmoid: bool, squeezed: bool) -> ModelProto:
    """Two classes in one number."""
    after = [node("Sigmoid", ["scores"], "chance" if squeezed else "y")] if sigmoid else []
    if squeezed:
        after.append(node("Squeeze", ["chance" if sigmoid else "scores", "last"], "y"))
    shape = ("N",) if squeezed else ("N", 1)
    return classifier(after=after, constants={"last": np.array([1])}, classes=1, outputs={"y": shape})


def probabilities() -> ModelProto:
    """A softmax behind a temperature, cast to half precision and back."""
    after = [
        node("Div", ["scores", "temperature"], "cooled"),
        node("Softmax", ["cooled"], "chances", axis=1),
        node("Cast", ["chances"], "half", to=TensorProto.FLOAT16),
        node("Cast", ["half"], "y", to=TensorProto.FLOAT),
    ]
    return classifier(after=after, constants={"temperature": np.float32(2)})


LOGITS_AND_FEATURES: dict[str, object] = {
    "after": [node("Identity", ["scores"], "logits"), node("Identity", ["f"], "features")],
    "outputs": {"logits": ("N", CLASSES), "features": ("N", 24)},
}


def two_outputs() -> ModelProto:
    """Logits and features."""
    return classifier(**LOGITS_AND_FEATURES)  # type: ignore[arg-type]


def run(path: Path | ModelProto, inputs: np.ndarray, *outputs: str) -> np.ndarray:
    """What ONNX Runtime computes for an array; the first output unless one is named."""
    source = path.SerializeToString() if isinstance(path, ModelProto) else str(path)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(list(outputs) or None, {session.get_inputs()[0].name: inputs})[0]
    return found
