"""What other exporters than PyTorch's are known to write, and hints that fit what wrote the file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from dfkd_core.errors import TeacherError
from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core.onnx_models import classifier, node, refused, save


def written_by(producer: str, made: ModelProto, version: str = "") -> ModelProto:
    made.producer_name, made.producer_version = producer, version
    return made


def verified(made: ModelProto, path: Path, spec: TeacherSpec | None = None) -> Inspection:
    """The inspection of a teacher that ONNX Runtime computes as we do."""
    spec = spec or TeacherSpec()
    save(made, path)
    verify_teacher(load_teacher(path, spec), path, generator=torch.Generator().manual_seed(0))
    return inspect_file(path, spec)


def with_labels() -> ModelProto:
    """A classifier as skl2onnx writes it: beside the probabilities the labels, which an operator of its own picks."""
    made = classifier([node("Softmax", ["scores"], ["probabilities"], axis=1)], output="probabilities")
    picked = helper.make_node("ArrayFeatureExtractor", ["classes", "first"], ["label"], domain="ai.onnx.ml")
    made.graph.node.extend([node("ArgMax", ["scores"], ["first"], axis=1), picked])
    made.graph.initializer.append(helper.make_tensor("classes", TensorProto.INT64, [5], range(5)))
    made.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return written_by("skl2onnx", made, "1.20.0")


def test_operators_of_other_outputs_do_not_matter(tmp_path: Path) -> None:
    found = verified(with_labels(), tmp_path / "teacher.onnx", TeacherSpec(output="probabilities"))
    assert found.exporter == "skl2onnx"
    assert found.num_classes == 5


def test_an_operator_set_may_be_declared_twice(tmp_path: Path) -> None:
    made = classifier()
    made.opset_import.append(helper.make_opsetid("", made.opset_import[0].version))
    assert verified(made, tmp_path / "teacher.onnx").opset == 18
    made.opset_import.append(helper.make_opsetid("", 17))
    assert "unsupported opset (17, 18)" in refused(made, tmp_path / "teacher.onnx").detail


ONE_AND_REST = {
    "joined": (["Sub one yes no", "Concat no yes logits"], "sigmoid-cut"),
    "stacked": (
        ["Sub one row rest", "Unsqueeze rest last no", "Unsqueeze row last again", "Concat no again logits"],
        "sigmoid-cut",
    ),
    "clipped": (["Clip yes low high inside", "Sub one inside no", "Concat no inside logits"], "sigmoid-cut"),
    "negated": (["Neg yes minus", "Add minus one no", "Concat no yes logits"], "sigmoid-cut"),
    "the other way round": (["Sub one yes no", "Concat yes no logits"], "sigmoid-cut"),
    "one of a softmax": (
        ["Softmax scores all", "Slice all from to last second", "Sub one second no", "Concat no second logits"],
        "log-of-probabilities",
    ),
}


@pytest.mark.parametrize(("spelled", "note"), ONE_AND_REST.values(), ids=ONE_AND_REST)
def test_two_classes_may_be_spelled_out(spelled: list[str], note: str, tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["scores", "to.one"], ["z"]),
        node("Sigmoid", ["z"], ["yes"]),
        node("Squeeze", ["yes", "last"], ["row"]),
    ]
    for line in spelled:
        op, *inputs, output = line.split()
        nodes.append(node(op, inputs, [output], **({"axis": 1} if op == "Concat" else {})))
    made = classifier(nodes)
    constants = {"to.one": np.array([[1], [-1], [2], [0.5], [-2]], "f4"), "one": np.float32(1), "last": np.array([1])}
    constants |= {"low": np.float32(1e-6), "high": np.float32(1 - 1e-6), "from": np.array([1]), "to": np.array([2])}
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    found = verified(made, tmp_path / "teacher.onnx")
    assert found.num_classes == 2
    assert found.interface is not None
    assert found.interface.output_form == "probabilities"
    assert found.interface.output_shape == [2]
    assert note in found.normalisations


def test_sigmoids_over_the_sum_of_their_absolute_values_are_probabilities(tmp_path: Path) -> None:
    rest = [node("Mul", ["scores", "tenth"], ["z"]), node("Sigmoid", ["z"], ["s"]), node("Abs", ["s"], ["a"])]
    rest += [node("ReduceSum", ["a", "axis"], ["sum"]), node("Div", ["s", "sum"], ["logits"])]
    made = classifier(rest)
    made.graph.initializer.append(helper.make_tensor("tenth", TensorProto.FLOAT, [], [0.1]))
    made.graph.initializer.append(helper.make_tensor("axis", TensorProto.INT64, [1], [1]))
    found = verified(made, tmp_path / "teacher.onnx")
    assert "log-of-probabilities" in found.normalisations


@pytest.mark.parametrize(("op", "function"), [("Erfc", torch.erfc), ("Expm1", torch.expm1)])
def test_operators_that_tf2onnx_leaves_in_its_file_are_computed(
    op: str, function: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    found = verified(
        written_by("tf2onnx", classifier([node(op, ["scores"], ["logits"])]), "1.17.0 None"), tmp_path / "t"
    )
    assert (found.exporter, found.exporter_version) == ("tf2onnx", "1.17.0")
    assert "tensorflow-operators-rewritten" in found.normalisations
    images = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    scores = load_teacher(save(classifier(output="scores"), tmp_path / "scores.onnx"), TeacherSpec())(images)
    torch.testing.assert_close(load_teacher(tmp_path / "t", TeacherSpec())(images), function(scores))


def test_constants_that_became_inputs_are_called_so(tmp_path: Path) -> None:
    made = written_by("tf2onnx", classifier())
    made.graph.input.append(helper.make_tensor_value_info("normalization_1/Sub/y:0", TensorProto.FLOAT, [1, 1, 1, 3]))
    assert "whose values Keras's export has lost" in str(refused(made, tmp_path / "teacher.onnx").hint)


def test_paddle_is_told_by_the_name_of_its_graph(tmp_path: Path) -> None:
    made = written_by("", classifier())
    made.graph.name = "PaddlePaddle Graph in PIR mode"
    assert verified(made, tmp_path / "teacher.onnx").exporter == "paddle2onnx"


def special(op: str, domain: str = "ai.onnx.ml") -> ModelProto:
    """A classifier that ends in an operator of another domain."""
    made = classifier([helper.make_node(op, ["scores"], ["logits"], domain=domain)])
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


def looped() -> ModelProto:
    """A classifier with a loop, as tf2onnx writes recurrent layers."""
    body = helper.make_graph([], "body", [], [])
    return written_by("tf2onnx", classifier([helper.make_node("Loop", ["", "", "scores"], ["logits"], body=body)]))


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        (looped(), "Loops, which tf2onnx writes for recurrent layers, and branches are not read. A network of Keras"),
        (special("Normalizer"), "black_op="),
        (special("TreeEnsembleClassifier"), "Decision trees have no gradient"),
        (special("FusedConv", "com.microsoft"), "ONNX Runtime has optimised this file"),
        (written_by("tf2onnx", classifier([node("Lgamma", ["scores"], ["logits"])])), "KERAS_BACKEND=torch"),
        (written_by("tf2onnx", classifier([node("Det", ["scores"], ["logits"])])), "Only the operators of image"),
        (written_by("tf2onnx", classifier(opset=99)), "--opset 18 for tf2onnx.convert"),
        (classifier(opset=99), "opset_version=18 in torch.onnx.export"),
        (written_by("", classifier(opset=99)), "again with operator set 18."),
    ],
)
def test_hints_fit_what_wrote_the_file(made: ModelProto, hint: str, tmp_path: Path) -> None:
    assert hint in str(refused(made, tmp_path / "teacher.onnx", kind=TeacherError).hint)


def test_other_exporters_are_not_told_the_options_of_pytorch(tmp_path: Path) -> None:
    made = written_by("skl2onnx", classifier())
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    made.graph.initializer[0].external_data.add(key="location", value="weights")
    assert "torch" not in str(refused(made, tmp_path / "teacher.onnx").hint)
