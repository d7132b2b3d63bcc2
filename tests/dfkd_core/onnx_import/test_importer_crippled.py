"""Nodes that lack what their operator needs: look-ups before the check must not fail on them."""

from pathlib import Path

import pytest
from onnx import NodeProto, TensorProto, helper

from dfkd_core.errors import TeacherError, TeacherInvalid
from dfkd_core.onnx_import.reader import read_plan
from tests.dfkd_core.onnx_models import classifier

NORM = helper.make_node("BatchNormalization", ["images", "a", "b", "c", "c"], ["logits"], training_mode=1)
ONE = (helper.make_node("Constant", [], ["one"], value_int=1),)
HUGE = (
    helper.make_node("Constant", [], ["sides"], value_ints=[2**31]),
    helper.make_node("ConstantOfShape", ["sides"], ["wide"]),
)
CRIPPLED: dict[str, tuple[NodeProto, ...]] = {
    "a last cast of nothing": (helper.make_node("Cast", [], ["logits"]),),
    "a last softmax of nothing": (helper.make_node("Softmax", [], ["logits"]),),
    "a node without outputs": (helper.make_node("Relu", ["images"], []),),
    "a batch norm without statistics": (
        helper.make_node("BatchNormalization", ["images"], ["logits"], training_mode=1),
    ),
    "a constant without a value": (helper.make_node("Constant", [], ["c"]), NORM),
    "a constant without a name": (helper.make_node("Constant", [], [], value_float=1.0), NORM),
    "a dropout of nothing": (helper.make_node("Dropout", [], ["logits"]),),
    "a sequence of nothing": (helper.make_node("SplitToSequence", [], ["logits"]),),
    "a split along no axis": (*ONE, helper.make_node("SplitToSequence", ["images", "one"], ["logits"], axis=9)),
    "a split of billions": (*HUGE, *ONE, helper.make_node("SplitToSequence", ["wide", "one"], ["logits"])),
    "a place that is many": (
        *ONE,
        helper.make_node("Constant", [], ["two"], value_ints=[0, 1]),
        helper.make_node("SplitToSequence", ["images", "one"], ["all"], axis=1),
        helper.make_node("SequenceAt", ["all", "two"], ["logits"]),
    ),
    "a sum of forty dimensions": (
        helper.make_node("Constant", [], ["sides"], value_ints=[1] * 40),
        helper.make_node("Expand", ["images", "sides"], ["logits"]),
    ),
}


@pytest.mark.parametrize("nodes", CRIPPLED.values(), ids=CRIPPLED.keys())
def test_nodes_that_lack_inputs_outputs_or_attributes_are_refused(tmp_path: Path, nodes: tuple[NodeProto, ...]) -> None:
    made = classifier()
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    (tmp_path / "crippled.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(TeacherError):
        read_plan(tmp_path / "crippled.onnx")


@pytest.mark.parametrize("sides", [(0, 0, 0, 2**62), (2**30, 0, 2**30, 2**30)])
def test_an_empty_tensor_with_huge_sides_is_refused(tmp_path: Path, sides: tuple[int, ...]) -> None:
    made = classifier()
    made.graph.initializer.append(TensorProto(name="empty", data_type=TensorProto.FLOAT, dims=sides, raw_data=b""))
    (tmp_path / "crippled.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(TeacherInvalid, match="invalid shape"):
        read_plan(tmp_path / "crippled.onnx")
