"""ONNX files that declare or compute too much are refused before memory is spent on them."""

import contextlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from dfkd_core.errors import OperatorUnsupported
from dfkd_core.onnx_import.ir.protobuf_scan import MAX_NODES, MAX_TENSORS
from dfkd_core.onnx_import.ir.state import MAX_FOLDED
from tests.dfkd_core.onnx_models import classifier, flattened, model, node, refused


@contextlib.contextmanager
def allocating_less_than(limit: int) -> Iterator[None]:
    """Check that the peak of memory allocated in the block, NumPy's arrays included, stays below `limit` bytes."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def test_what_would_not_fit_into_memory_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    huge = np.array([1, 1, 2**20, 2**20], np.int64)
    for nodes in (
        [node("ConstantOfShape", ["huge"], ["zeros"]), node("Add", ["images", "zeros"])],
        [node("Expand", ["images", "huge"])],
        [node("Tile", ["images", "huge"])],
        [node("Pad", ["images", "huge"])],
        [node("Range", ["low", "high", "step"], ["r"]), node("Add", ["images", "r"])],
    ):
        constants = {"huge": huge, "low": np.float32(0), "high": np.float32(1e12), "step": np.float32(1)}
        if nodes[0].op_type == "Pad":
            constants["huge"] = np.array([0, 0, 0, 0, 0, 0, 2**20, 2**20], np.int64)
        with allocating_less_than(2**24):
            refused(flattened(nodes, constants), tmp_path / "model.onnx", kind=OperatorUnsupported)


def test_too_many_nodes_and_tensors_are_counted_before_they_are_parsed(tmp_path: Path) -> None:
    many = classifier()
    many.graph.node.extend([helper.make_node("Relu", ["c"], ["x"])] * (MAX_NODES + 1))
    assert "nodes" in refused(many, tmp_path / "nodes.onnx").detail
    many = classifier()
    many.graph.initializer.extend([TensorProto()] * (MAX_TENSORS + 1))
    assert "tensors" in refused(many, tmp_path / "tensors.onnx").detail


def test_a_graph_that_only_a_larger_computer_could_run_is_refused(tmp_path: Path) -> None:
    chain = [node("Exp", ["images" if at == 0 else f"e{at - 1}"], [f"e{at}"]) for at in range(17)]
    pooled = [node("GlobalAveragePool", ["e16"], ["p"]), node("Flatten", ["p"], ["logits"])]
    wide = model([*chain, *pooled], shape=["batch", 2, 4096, 4096])
    assert "too large" in refused(wide, tmp_path / "wide.onnx").detail
    factors = ["t", *(f"m{at}" for at in range(8))]
    products = [
        node("MatMul", [factor, "t"], [made]) for factor, made in zip(factors, [*factors[1:], "e16"], strict=True)
    ]
    busy = [node("Transpose", ["images"], ["t"], perm=[0, 1, 3, 2]), *products, *pooled]
    assert "multiply-adds" in refused(model(busy, shape=["batch", 2, 4096, 4096]), tmp_path / "busy.onnx").detail


def test_constants_that_are_computed_have_a_limit_together(tmp_path: Path) -> None:
    side = 2**13
    sums = [node("Add", ["row" if at == 0 else f"s{at - 1}", "column"], [f"s{at}"]) for at in range(4)]
    constants = {"row": np.zeros((1, side), np.float32), "column": np.zeros((side, 1), np.float32)}
    made = flattened([*sums, node("ReduceMax", ["s3"], ["m"]), node("Add", ["images", "m"])], constants)
    allowed = MAX_FOLDED // (2 * side**2)  # sums below the limit, which counts each of them at two batch sizes
    assert allowed < len(sums)
    one = 4 * side**2  # bytes of a sum
    with allocating_less_than((allowed + 1) * one):
        refusal = refused(made, tmp_path / "sums.onnx", kind=OperatorUnsupported)
    assert f"the_s{allowed}: Add — the constants that the graph computes are too large" in refusal.detail


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (node("Where", ["mask", "images", "images", "images"]), "4 inputs"),
        (node("Where", ["mask", "images"]), "2 inputs"),
        (node("Relu", ["images", "images"]), "2 inputs"),
        (node("Relu", ["images"], ["out", "more"]), "2 outputs"),
        (node("IsNaN", ["images", "images"]), "2 inputs"),
    ],
)
def test_a_node_has_as_many_inputs_and_outputs_as_its_operator_allows(
    made: NodeProto, what: str, tmp_path: Path
) -> None:
    refusal = refused(flattened([made], {"mask": np.ones(6, bool)}), tmp_path / "t.onnx", kind=OperatorUnsupported)
    assert refusal.detail.endswith(f"{made.op_type} — it cannot have {what}")


@pytest.mark.parametrize(("inputs", "missing"), [(["images", ""], 1), (["", "images"], 0)])
def test_a_node_has_the_inputs_that_its_operator_needs(inputs: list[str], missing: int, tmp_path: Path) -> None:
    refusal = refused(flattened([node("Mul", inputs)]), tmp_path / "t.onnx", kind=OperatorUnsupported)
    assert refusal.detail.endswith(f"Mul — input {missing} is missing")
