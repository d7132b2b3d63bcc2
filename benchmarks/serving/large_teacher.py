"""A teacher with a large file and a small graph, to measure the cost of an upload by its size."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDE = 8192  # of the layer in the middle: 4 × 8192² bytes


def large_teacher(path: Path, seed: int) -> Path:
    """Write the teacher, which has 271 MB of float32 weights."""
    generator = np.random.default_rng(seed)
    sizes = [64, WIDE, WIDE, 4]
    weights = [
        numpy_helper.from_array(generator.normal(0, 0.05, (after, before)).astype(np.float32), f"w{number}")
        for number, (before, after) in enumerate(pairwise(sizes))
    ]
    nodes, last = [helper.make_node("Flatten", ["images"], ["x0"])], "x0"
    for number in range(len(weights)):
        name = "logits" if number == len(weights) - 1 else f"x{number + 1}"
        nodes.append(helper.make_node("Gemm", [last, f"w{number}"], [name], transB=1))
        last = name
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
