"""A teacher small enough for end-to-end tests: two convolutions and a linear layer on 8 × 8 images, four classes."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT_SHAPE = (1, 8, 8)
NUM_CLASSES = 4


def write_teacher(path: Path, *, seed: int = 0) -> Path:
    """Write random weights that are large enough for all four classes to occur."""
    generator = np.random.default_rng(seed)

    def weights(name: str, *shape: int, gain: float = 1.4) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:]))
        values = generator.normal(0.0, gain / np.sqrt(fan_in), shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    def zeros(name: str, size: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(size, np.float32), name)

    initializers = [weights("w1", 16, 1, 3, 3), zeros("b1", 16), weights("w2", 48, 16, 3, 3), zeros("b2", 48)]
    initializers += [weights("w3", NUM_CLASSES, 48, gain=12.0), zeros("b3", NUM_CLASSES)]
    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *INPUT_SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", NUM_CLASSES])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
