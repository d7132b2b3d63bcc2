"""Resolving: specs are completed from the file, and contradictions are refused with a pointer."""

from typing import Any

import pytest

from dfkd_core.errors import DfkdError, RequirementError, StudentError, StudentNotSmaller, TeacherMismatch
from dfkd_core.inspection.inspection import BatchNormFacts, Inspection, folded_warning
from dfkd_core.inspection.resolve import resolve
from dfkd_core.interface import TeacherInterface
from dfkd_core.spec.config import DistillSpec
from dfkd_core.spec.teacher import InputSpec


def inspection(**changes: Any) -> Inspection:
    facts: dict[str, Any] = {
        "format": "onnx",
        "opset": 18,
        "parameters": 61706,
        "input_shape": [1, 32, 32],
        "num_classes": 10,
        "batchnorm": BatchNormFacts(status="none", present=0),
        "offers": ["features"],
    }
    return Inspection(**{**facts, **changes})


def spec(**changes: Any) -> DistillSpec:
    return DistillSpec.model_validate({"student": {"architecture": "lenet5_half"}, **changes})


def refused(error: type[DfkdError], pointer: str, *, facts: dict[str, Any] | None = None, **changes: Any) -> DfkdError:
    with pytest.raises(error) as refusal:
        resolve(spec(**changes), inspection(**(facts or {})))
    assert refusal.value.pointer == pointer
    return refusal.value


def test_what_the_file_says_is_filled_in() -> None:
    resolved, student, _ = resolve(spec(), inspection())
    assert resolved.teacher.format == "onnx"
    assert resolved.teacher.num_classes == 10
    assert resolved.teacher.input is not None
    assert resolved.teacher.input.shape == [1, 32, 32]
    assert (student.name, student.parameters) == ("lenet5_half", 15738)
    assert DistillSpec.model_validate_json(resolved.model_dump_json()) == resolved


def test_what_the_caller_said_is_kept() -> None:
    images = {"shape": [1, 32, 32], "mean": [0.5], "std": [0.25], "range": [0.0, 1.0], "layout": "NCHW"}
    given = {"input": images, "num_classes": 10, "format": "onnx"}
    resolved, _, warnings = resolve(spec(teacher=given), inspection())
    assert resolved.teacher == spec(teacher=given).teacher
    assert warnings == []


def test_a_subclass_stays_what_it_is() -> None:
    class Wider(DistillSpec):
        label: str = "mine"

    resolved, _, _ = resolve(Wider.model_validate({"student": {"architecture": "lenet5_half"}}), inspection())
    assert isinstance(resolved, Wider)


def test_an_unknown_pixel_range_is_warned_about() -> None:
    _, _, warnings = resolve(spec(), inspection())
    assert [warning.code for warning in warnings] == ["input-range-unknown"]
    assert all(set(warning.model_dump()) == {"code", "detail", "hint"} for warning in warnings)


def test_folded_statistics_are_warned_about() -> None:
    facts = {"batchnorm": BatchNormFacts(status="folded", present=0), "warnings": [folded_warning("folded")]}
    _, _, warnings = resolve(spec(), inspection(**facts))
    assert warnings[0].code == "teacher-batchnorm-folded"
    assert "do_constant_folding=False" in (warnings[0].hint or "")


def pixels_inspection(**changes: Any) -> dict[str, Any]:
    interface = TeacherInterface(input_type="uint8", layout="NHWC", output_name="y", output_shape=[10])
    return {"input_shape": [3, 32, 32], "output_name": "y", "interface": interface, **changes}


def test_what_the_file_takes_and_returns_is_filled_in() -> None:
    resolved, _, warnings = resolve(spec(), inspection(**pixels_inspection()))
    assert resolved.teacher.input == InputSpec(shape=[3, 32, 32], layout="NHWC", range=[0.0, 255.0])
    assert resolved.teacher.output == "y"
    assert warnings == []
    again, _, _ = resolve(resolved, inspection(**pixels_inspection()))
    assert again == resolved


def test_whole_pixels_are_not_normalised_before_the_file() -> None:
    facts = pixels_inspection()
    told = {"mean": [0.5] * 3, "std": [0.2] * 3}
    refused(TeacherMismatch, "/teacher/input/mean", facts=facts, teacher={"input": told})
    refused(TeacherMismatch, "/teacher/input/range", facts=facts, teacher={"input": {"range": [0.0, 256.0]}})


def test_mean_and_std_need_no_shape_where_the_file_tells_it() -> None:
    resolved, _, warnings = resolve(spec(teacher={"input": {"mean": [0.5], "std": [0.5]}}), inspection())
    assert resolved.teacher.told_shape == (1, 32, 32)
    assert warnings == []
    refused(TeacherMismatch, "/teacher/input/mean", teacher={"input": {"mean": [0.5, 0.5], "std": [0.5, 0.5]}})


def test_a_range_alone_is_known() -> None:
    resolved, _, warnings = resolve(spec(teacher={"input": {"range": [0.0, 255.0]}}), inspection())
    assert resolved.teacher.input is not None
    assert resolved.teacher.input.pixel_bounds(1) == ([0.0], [255.0])
    assert warnings == []


def test_specs_that_were_stored_before_layouts_keep_their_unknown_range() -> None:
    stored = {"shape": [1, 32, 32], "mean": None, "std": None, "range": [0.0, 1.0]}
    assert InputSpec.model_validate(stored).pixel_bounds(1) == ([-3.0], [3.0])


def test_contradictions_are_refused_with_a_pointer() -> None:
    refused(TeacherMismatch, "/teacher/input/shape", teacher={"input": {"shape": [3, 32, 32]}})
    refused(TeacherMismatch, "/teacher/num_classes", teacher={"num_classes": 11})
    refused(TeacherMismatch, "/teacher/format", teacher={"format": "safetensors"})


def test_what_the_file_leaves_open_must_be_said() -> None:
    refused(TeacherMismatch, "/teacher/input", facts={"input_shape": None, "num_classes": None})
    refused(TeacherMismatch, "/teacher/architecture", facts={"format": "safetensors", "input_shape": None})


def test_a_student_that_cannot_be_built_is_refused() -> None:
    assert "lenet5" in str(refused(StudentError, "/student/architecture", student={"architecture": "no_such"}).hint)
    refused(StudentError, "/student/architecture", facts={"input_shape": [1, 16, 16]})


def test_a_student_must_be_smaller_than_its_teacher() -> None:
    error = refused(StudentNotSmaller, "/student/architecture", facts={"parameters": 15738})
    assert error.code == "student-not-smaller"
    resolve(spec(), inspection(parameters=15739))


def test_an_averaged_generator_needs_a_method_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    averaged = spec(distillation={"memory": "ema"})
    resolve(averaged, inspection())
    monkeypatch.setattr(type(averaged.distillation.method_options), "gives", frozenset())
    with pytest.raises(RequirementError) as refusal:
        resolve(averaged, inspection())
    assert refusal.value.pointer == "/distillation/memory"
    assert "reservoir" in str(refusal.value.hint)
    resolve(spec(), inspection())


def test_a_method_that_needs_batchnorm_is_refused_without_it() -> None:
    refused(RequirementError, "/distillation/method", distillation={"method": "ddad"})
    coarse = {"method": "deepinversion", "method_options": {"coarse_steps": 5}}
    refused(RequirementError, "/distillation/method_options/coarse_steps", distillation=coarse)
    resolve(spec(distillation=coarse), inspection(offers=["features", "half-size"]))
    resolve(spec(distillation={"method": "ddad"}), inspection(offers=["batchnorm", "features"]))
    resolve(spec(distillation={"method": "dfq"}), inspection())


def test_a_memory_that_needs_what_the_teacher_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = spec()
    monkeypatch.setattr(type(needy.distillation.memory_options), "needs", frozenset({"batchnorm"}))
    facts = {"batchnorm": BatchNormFacts(status="folded", present=0), "warnings": [folded_warning("folded")]}
    with pytest.raises(RequirementError) as refusal:
        resolve(needy, inspection(**facts))
    assert refusal.value.pointer == "/distillation/memory"
    assert "PRESERVE" in str(refusal.value.hint)
    resolve(needy, inspection(offers=["batchnorm", "features"]))
