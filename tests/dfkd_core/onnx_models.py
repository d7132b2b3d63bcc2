"""ONNX models written by hand, a few nodes each, and the refusal of one."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dfkd_core.errors import TeacherError, TeacherInvalid
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.spec.teacher import TeacherSpec

SHAPE = (4, 4, 6)
IR_VERSION = 9
BOUNDED_SECONDS = 60  # CPU time


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] = ("out",), **attributes: Any) -> NodeProto:
    """One node, named after its first output."""
    return helper.make_node(op, list(inputs), list(outputs), name=f"the_{outputs[0]}", **attributes)


def model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    shape: Sequence[int | str] = ("batch", *SHAPE),
    output: str = "logits",
    element: int = TensorProto.FLOAT,
    ir_version: int = IR_VERSION,
) -> ModelProto:
    """A model from `images` to `logits` (N, K)."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("images", element, list(shape))],
        [helper.make_tensor_value_info(output, element, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = ir_version
    made.producer_name = "pytorch"  # whose names tell that a bias is the network's own
    return made


def flattened(
    nodes: Sequence[NodeProto], constants: Mapping[str, np.ndarray] | None = None, **options: Any
) -> ModelProto:
    """The same with logits = 1.5 times the value `out`, flattened: so that no operator ends the graph."""
    tail = [node("Flatten", ["out"], ["flat_out"]), node("Mul", ["flat_out", "gain"], ["logits"])]
    return model([*nodes, *tail], {**(constants or {}), "gain": np.float32(1.5)}, **options)


def classifier(last: Sequence[NodeProto] = (), *, output: str = "logits", **options: Any) -> ModelProto:
    """Conv, ReLU, global pooling, Gemm → `scores`; `last` nodes lead from there to `output`."""
    rng = np.random.default_rng(0)
    constants = {
        "conv.weight": rng.normal(size=(8, 4, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=8).astype(np.float32),
        "fc.weight": rng.normal(size=(5, 8)).astype(np.float32),
        "fc.bias": rng.normal(size=5).astype(np.float32),
    }
    end = "scores" if last else output
    nodes = [
        helper.make_node("Conv", ["images", "conv.weight", "conv.bias"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], [end], name="fc", transB=1),
    ]
    return model([*nodes, *last], constants, output=output, **options)


def save(made: ModelProto, path: Path) -> Path:
    """The model's bytes in a file."""
    path.write_bytes(made.SerializeToString())
    return path


def refused(made: ModelProto | bytes, path: Path, *, kind: type[TeacherError] = TeacherInvalid) -> TeacherError:
    """The refusal of a file; the bound on CPU time only tells it from an inspection that does not end."""
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    begin = time.process_time()
    with pytest.raises(kind) as refusal:
        inspect_file(path, TeacherSpec())
    assert time.process_time() - begin < BOUNDED_SECONDS
    return refusal.value
