"""Verification: parity, gradients, dead inputs and probabilities, each on a teacher that has the fault."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from dfkd_core.errors import ConstantTeacher, NotDifferentiable, ParityError, TeacherInvalid
from dfkd_core.onnx_import.advice import parity_hint
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import Teacher, load_teacher
from dfkd_core.teachers.verification import Verification, draw_images, verify_teacher
from tests.dfkd_core.onnx_models import classifier, flattened, node, save


def deep(made: ModelProto, path: Path) -> Verification:
    teacher = load_teacher(save(made, path), TeacherSpec())
    return verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))


def test_a_sound_teacher_passes(tmp_path: Path) -> None:
    depth = deep(classifier(), tmp_path / "teacher.onnx")
    assert depth.max_abs_diff is not None
    assert depth.max_abs_diff < 1e-4
    assert depth.batches == (1, 2, 7)
    assert depth.gradient_error < 1e-4
    assert depth.dead_input_fraction == 0
    assert depth.outputs == "logits"


def test_the_same_generator_gives_the_same_depth(tmp_path: Path) -> None:
    assert deep(classifier(), tmp_path / "a.onnx") == deep(classifier(), tmp_path / "a.onnx")


def test_weights_that_differ_from_the_file_fail_parity(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "teacher.onnx")
    teacher = load_teacher(path, TeacherSpec())
    assert isinstance(teacher.classifier, torch.nn.Linear)
    with torch.no_grad():
        teacher.classifier.bias[2] += 0.01
    with pytest.raises(ParityError, match="differs from ONNX Runtime") as refusal:
        verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert refusal.value.hint == "Our reading is at fault: please report it with the file."


@pytest.mark.parametrize(
    ("exporter", "opset", "fixed", "advised"),
    [
        ("pytorch-legacy", 12, False, ["opset_version=18 in torch.onnx.export"]),
        ("tf2onnx", 15, True, ["--opset 18 for tf2onnx.convert", "any number of images"]),
        ("matlab", 9, False, ["'OpsetVersion', 14"]),
        ("matlab", 14, True, ["any number of images"]),
        (None, 20, False, []),
    ],
)
def test_what_may_help_against_other_logits_fits_the_file(
    exporter: str | None, opset: int, fixed: bool, advised: list[str]
) -> None:
    hint = parity_hint(exporter, opset=opset, fixed=fixed)
    assert all(part in hint for part in advised)
    assert ("Export" in hint) == bool(advised)
    assert hint.endswith("please report it with the file.")


def test_probabilities_that_the_graph_hides_are_refused(tmp_path: Path) -> None:
    """Squares of numbers on the unit sphere sum to 1: the importer does not see it, the outputs betray it."""
    end = [node("LpNormalization", ["scores"], ["unit"], axis=1), node("Mul", ["unit", "unit"], ["logits"])]
    made = classifier(end)
    with pytest.raises(TeacherInvalid, match="probabilities"):
        deep(made, tmp_path / "teacher.onnx")


def test_log_probabilities_serve_as_logits(tmp_path: Path) -> None:
    end = [node("LogSoftmax", ["scores"], ["logs"], axis=-1), node("Mul", ["logs", "one"], ["logits"])]
    made = classifier(end)
    made.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    assert deep(made, tmp_path / "teacher.onnx").outputs == "log-probabilities"


def test_a_teacher_that_only_compares_has_no_gradient(tmp_path: Path) -> None:
    nodes = [node("Greater", ["images", "zero"], ["mask"]), node("Where", ["mask", "one", "zero"])]
    made = flattened(nodes, {"zero": np.float32(0), "one": np.float32(1)})
    with pytest.raises(NotDifferentiable):
        deep(made, tmp_path / "teacher.onnx")


def test_a_teacher_that_saturates_everywhere_is_refused(tmp_path: Path) -> None:
    made = flattened([node("Clip", ["images", "low", "high"])], {"low": np.float32(50), "high": np.float32(60)})
    with pytest.raises(ConstantTeacher, match="do not depend on the image") as refusal:
        deep(made, tmp_path / "teacher.onnx")
    assert "untrained" in str(refusal.value.hint)
    assert "range" in str(refusal.value.hint)


@pytest.mark.parametrize(("gain", "offset"), [(1e-20, 0.0), (1e-9, 1.0), (1e-6, 1000.0), (0.0, 1.0)])
def test_a_teacher_whose_images_vanish_within_rounding_is_constant(gain: float, offset: float, tmp_path: Path) -> None:
    """Fresh weights make a deep net so: every layer halves what the images change, and the head adds its bias."""
    with pytest.raises(ConstantTeacher, match="within the rounding of float32"):
        deep(faint(gain, offset), tmp_path / "teacher.onnx")


@pytest.mark.parametrize(("gain", "offset"), [(1e-4, 0.0), (1e-4, 1.0), (1.0, 1000.0), (1e4, 0.0)])
def test_a_small_dependence_on_the_images_is_measured_within_its_error_bar(
    gain: float, offset: float, tmp_path: Path
) -> None:
    assert deep(faint(gain, offset), tmp_path / "teacher.onnx").gradient_error < 1e-2


def faint(gain: float, offset: float) -> ModelProto:
    """The classifier with its logits times `gain` and plus `offset`."""
    made = classifier([node("Mul", ["scores", "gain"], ["faint"]), node("Add", ["faint", "offset"], ["logits"])])
    for name, number in (("gain", gain), ("offset", offset)):
        made.graph.initializer.append(numpy_helper.from_array(np.full(5, number, np.float32), name))
    return made


def test_a_gradient_that_is_off_is_found_at_every_size(tmp_path: Path) -> None:
    for gain in (1e-4, 1.0, 1e4):
        path = save(faint(gain, 0.0), tmp_path / "teacher.onnx")
        teacher = load_teacher(path, TeacherSpec())
        convolution = next(module for module in teacher.modules() if isinstance(module, torch.nn.Conv2d))
        convolution.register_full_backward_hook(lambda module, found, _: tuple(2 * one for one in found))
        with pytest.raises(NotDifferentiable, match="off by"):
            verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))


def test_a_jump_that_the_gradient_does_not_see_is_found(tmp_path: Path) -> None:
    """Inside each tooth of a fine saw autograd sees a slope; the jumps between them rule the finite difference."""
    nodes = [
        node("Mul", ["images", "steep"], ["phase"]),
        node("Sin", ["phase"], ["wave"]),
        node("Greater", ["wave", "zero"], ["mask"]),
        node("Where", ["mask", "images", "far"]),
    ]
    constants = {"steep": np.float32(1e8), "zero": np.float32(0), "far": np.float32(9)}
    path = save(flattened(nodes, constants), tmp_path / "teacher.onnx")
    teacher = load_teacher(path, TeacherSpec())
    with pytest.raises((NotDifferentiable, ParityError)):
        verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))


def test_the_share_of_dead_inputs_is_told(tmp_path: Path) -> None:
    made = flattened(
        [node("Slice", ["images", "from", "to", "axis"])],
        {"from": np.array([0]), "to": np.array([1]), "axis": np.array([1])},
    )
    assert deep(made, tmp_path / "teacher.onnx").dead_input_fraction == pytest.approx(0.75)


def test_what_onnx_runtime_refuses_is_refused(tmp_path: Path) -> None:
    again = helper.make_node("Relu", ["scores"], ["logits"], name="relu")  # a name used twice
    made = classifier([again])
    with pytest.raises(TeacherInvalid, match="ONNX Runtime refuses"):
        deep(made, tmp_path / "teacher.onnx")


def test_images_are_drawn_from_the_input_space(tmp_path: Path) -> None:
    spec = TeacherSpec(input=InputSpec(shape=[4, 4, 6], mean=[0.5, 0.4, 0.3, 0.2], std=[0.5, 0.2, 0.1, 0.05]))
    teacher: Teacher = load_teacher(save(classifier(), tmp_path / "teacher.onnx"), spec)
    images = draw_images(teacher, 500, torch.Generator().manual_seed(0))
    low, high = torch.tensor(teacher.input_space.low), torch.tensor(teacher.input_space.high)
    assert torch.allclose(images.amin((0, 2, 3)), low, atol=0.01 * (high - low).max().item())
    assert torch.allclose(images.amax((0, 2, 3)), high, atol=0.01 * (high - low).max().item())
    assert teacher.warnings == []


def test_a_teacher_is_frozen_and_stays_in_eval_mode(tmp_path: Path) -> None:
    teacher = load_teacher(save(classifier(), tmp_path / "teacher.onnx"), TeacherSpec())
    assert not teacher.train().training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.warnings == ["input-range-unknown"]


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_logits_that_depend_on_the_other_images_are_refused(share: float, tmp_path: Path) -> None:
    end = [
        node("ReduceMean", ["scores", "batch"], ["mean"], keepdims=1),
        node("Mul", ["mean", "share"], ["less"]),
        node("Sub", ["scores", "less"], ["logits"]),
    ]
    made = classifier(end)
    made.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch"))
    made.graph.initializer.append(numpy_helper.from_array(np.float32(share), "share"))
    with pytest.raises(TeacherInvalid, match="depend on the other images of its batch"):
        deep(made, tmp_path / "teacher.onnx")
