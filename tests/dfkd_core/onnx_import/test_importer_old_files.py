"""Files of old operator sets and IR versions, of float64, and of quantised networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dfkd_core.errors import OperatorUnsupported
from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.onnx_import.ir.parse import to_single
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import Teacher, load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core.onnx_models import SHAPE, classifier, flattened, model, node, refused, save

SPEC = TeacherSpec(input=InputSpec(shape=[4, 4, 6], mean=[0.5] * 4, std=[0.25] * 4))


def verified(made: ModelProto, path: Path) -> tuple[Teacher, Inspection]:
    """The teacher and its inspection, after its logits were compared with ONNX Runtime's."""
    teacher = load_teacher(save(made, path), SPEC)
    depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert depth.max_abs_diff is not None
    assert depth.gradient_error < 1e-4
    return teacher, inspect_file(path, SPEC)


def with_weights_as_inputs(made: ModelProto) -> ModelProto:
    """The model as IR version 3 wants it: every initializer is an input too."""
    for tensor in made.graph.initializer:
        made.graph.input.insert(0, helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    made.ir_version = 3
    return made


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_an_old_operator_set_is_brought_up(opset: int, tmp_path: Path) -> None:
    teacher, found = verified(with_weights_as_inputs(classifier(opset=opset)), tmp_path / "old.onnx")
    assert found.opset == opset
    assert found.normalisations == (["opset-upgraded"] if opset < 9 else [])
    assert found.parameters == 8 * 4 * 9 + 8 + 5 * 8 + 5
    new = load_teacher(save(classifier(), tmp_path / "new.onnx"), SPEC)
    images = torch.randn(3, *SHAPE)
    assert torch.equal(teacher(images), new(images))


def test_what_other_programs_wrote_years_ago_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("Sub", ["images", "mean_image"], ["centred"]),
        node("Conv", ["centred", "kernel", "bias"], ["c"], kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", "one", "zero", "half", "one"], ["b"], spatial=1),
        node("Relu", ["b"], ["r"]),
        node("Dropout", ["r"], ["d"], ratio=0.5),
        node("Upsample", ["d"], ["u"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
        node("Flatten", ["u"], ["f"]),
        node("Gemm", ["f", "matrix", "offset"], ["g"], transB=1),
        node("Softmax", ["g"], ["logits"], axis=1),
    ]
    constants = {"mean_image": rng.normal(size=(1, *SHAPE)), "kernel": rng.normal(size=(6, 4, 3, 3))}
    constants |= {"bias": rng.normal(size=6), "matrix": rng.normal(size=(10, 192)), "offset": rng.normal(size=10)}
    constants |= {"one": np.ones(6), "zero": np.zeros(6), "half": np.full(6, 0.5)}
    single = {name: array.astype(np.float32) for name, array in constants.items()}
    _, found = verified(model(nodes, single, opset=7, ir_version=3), tmp_path / "old.onnx")
    assert found.normalisations == ["opset-upgraded", "dropout-removed", "softmax-cut"]
    assert found.batchnorm.present == 1


def test_what_the_oldest_set_broadcasts_from_an_axis_on_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    single = {name: rng.normal(size=size).astype(np.float32) for name, size in {"gain": 4, "slope": 4}.items()}
    single |= {"row": rng.normal(size=6).astype(np.float32), "matrix": rng.normal(size=(5, 96)).astype(np.float32)}

    single |= {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}

    def made(opset: int) -> ModelProto:
        testing = {"is_test": 1} if opset < 7 else {}
        old = {"broadcast": 1} if opset < 7 else {}
        constants = (
            dict(single) if opset < 7 else {**single, **{k: single[k].reshape(4, 1, 1) for k in ("gain", "slope")}}
        )
        nodes = [
            node("Mul", ["images", "gain"], ["scaled"], **({**old, "axis": 1} if old else {})),
            node("PRelu", ["scaled", "slope"], ["bent"]),
            node("Add", ["bent", "row"], ["moved"], **({**old, "axis": -1} if old else {})),
            node("Add", ["moved", "row"], ["again"], **old),
            node("BatchNormalization", ["again", "one", "zero", "zero", "one"], ["normal"], **testing),
            node("Dropout", ["normal"], ["kept"], **testing),
            node("Flatten", ["kept"], ["flat"]),
            node("Gemm", ["flat", "matrix", "offset"], ["logits"], transB=1, **old),
        ]
        return model(nodes, {**constants, "offset": np.arange(5, dtype=np.float32)}, opset=opset, ir_version=3)

    teacher, found = verified(with_weights_as_inputs(made(6)), tmp_path / "old.onnx")
    assert (found.opset, found.normalisations) == (6, ["opset-upgraded", "dropout-removed"])
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher(images), load_teacher(save(made(9), tmp_path / "new.onnx"), SPEC)(images))


def test_an_operator_that_has_no_newer_form_is_refused_clearly(tmp_path: Path) -> None:
    made = flattened([node("Upsample", ["images"], mode="nearest")], opset=8)
    refusal = refused(made, tmp_path / "old.onnx")
    assert refusal.detail == "the operators of opset 8 cannot be brought up to opset 9"
    assert "opset_version=18 in torch.onnx.export" in str(refusal.hint)


def test_every_unknown_operator_of_an_old_file_is_listed(tmp_path: Path) -> None:
    made = flattened([node("LSTM", ["images"], ["a"]), node("Crop", ["a"])], opset=7)
    refusal = refused(made, tmp_path / "old.onnx", kind=OperatorUnsupported)
    assert isinstance(refusal, OperatorUnsupported)
    assert len(refusal.nodes) == 2


def test_a_teacher_of_float64_is_computed_and_compared_in_float32(tmp_path: Path) -> None:
    made = classifier(element=TensorProto.DOUBLE)
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    fc = made.graph.node[-1]
    fc.output[0] = "scores"
    gain = numpy_helper.from_array(np.array([1.5]), "gain")
    made.graph.node.extend(
        [
            helper.make_node("Constant", [], ["gain"], value=gain),
            helper.make_node("Cast", ["scores"], ["single"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["single"], ["double"], to=TensorProto.DOUBLE),
            helper.make_node("Mul", ["double", "gain"], ["logits"]),
        ]
    )
    teacher, found = verified(made, tmp_path / "double.onnx")
    assert teacher(torch.zeros(1, *SHAPE)).dtype == torch.float32
    assert found.normalisations == ["temperature-folded", "float64-to-float32"]
    assert "teacher-float64" in {warning.code for warning in found.warnings}


def test_a_finite_number_of_float64_stays_finite() -> None:
    given = np.array([-1.7e308, -np.inf, np.inf, 2.5])
    assert to_single(given).tolist() == [float(np.finfo(np.float32).min), -np.inf, np.inf, 2.5]


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_a_quantised_network_is_refused_with_the_way_out(domain: str, tmp_path: Path) -> None:
    names = ["images", "scale", "zero"]
    kinds = ("QuantizeLinear", "DequantizeLinear") if not domain else ("QLinearAdd", "QLinearAdd")
    nodes = [
        helper.make_node(kinds[0], names, ["q"], domain=domain),
        helper.make_node(kinds[1], ["q", *names[1:]], ["out"], domain=domain),
    ]
    made = flattened(nodes, {"scale": np.float32(0.1), "zero": np.uint8(7)})
    refusal = refused(made, tmp_path / "int8.onnx", kind=OperatorUnsupported)
    assert refusal.hint == (
        "A quantised network has no useful gradient: give the float model that it was quantised from."
    )
