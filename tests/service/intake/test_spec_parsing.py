"""From JSON to a spec: parsing is strict and complete, and every error has the pointer of its field."""

import json
from typing import Any

import pytest

from dfkd_core.errors import StudentError
from jobs.models import JobSpec
from service.intake.spec_parsing import read_request, read_spec
from service.problems.errors import MAX_ERRORS, ValidationFailed

STUDENT = {"student": {"architecture": "lenet5_half"}}


def read(**document: Any) -> JobSpec:
    return read_spec(json.dumps({**STUDENT, **document}).encode(), max_bytes=64 * 1024)


def complaints(**document: Any) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as caught:
        read(**document)
    return {error.pointer: error.detail for error in caught.value.errors}


def test_every_default_is_filled_in() -> None:
    spec = read()
    assert spec.distillation.method == "auto"  # until the teacher is known
    assert spec.distillation.memory == "vae"
    assert spec.export.opset == 18
    assert spec.model_dump(mode="json")["distillation"]["memory_options"]["latent_dim"] > 0


def test_what_was_filled_in_can_be_sent_again() -> None:
    spec = read(name="again", labels={"a": "b"}, distillation={"memory": "reservoir", "seed": 3})
    assert read_spec(spec.model_dump_json().encode(), max_bytes=64 * 1024) == spec


def test_options_may_repeat_the_name_that_was_asked_for() -> None:
    assert read(distillation={"memory": "none", "memory_options": {"name": "none"}}) == read(
        distillation={"memory": "none"}
    )


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({"unknown": 1}, {"/unknown"}),
        ({"student": {}}, {"/student/architecture"}),
        ({"student": {"architecture": "x", "widht": 2}}, {"/student/widht"}),
        ({"student": [1]}, {"/student"}),
        ({"distillation": {"seed": True}}, {"/distillation/seed"}),
        ({"distillation": {"seed": "7"}}, {"/distillation/seed"}),
        ({"distillation": {"seed": 1.0}}, {"/distillation/seed"}),
        ({"distillation": {"seed": -1}}, {"/distillation/seed"}),
        ({"distillation": {"seed": 2**63}}, {"/distillation/seed"}),
        ({"distillation": {"budget": {"steps": 0}}}, {"/distillation/budget/steps"}),
        ({"distillation": {"memory": "vase"}}, {"/distillation/memory"}),
        ({"distillation": {"memory": ["vae"]}}, {"/distillation/memory"}),
        (
            {"distillation": {"memory": "none", "memory_options": {"capacity": 3}}},
            {"/distillation/memory_options/capacity"},
        ),
        ({"distillation": {"memory_options": {"latent_dim": "a"}}}, {"/distillation/memory_options/latent_dim"}),
        ({"distillation": {"memory_options": 3}}, {"/distillation/memory_options"}),
        ({"distillation": {"method_options": {"zzz": 3}}}, {"/distillation/method_options/zzz"}),
        ({"distillation": {"memory_options": {"name": "none"}}}, {"/distillation/memory_options/name"}),
        (
            {"distillation": {"method_options": {"name": "x", "y": 1}}},
            {"/distillation/method_options/name", "/distillation/method_options/y"},
        ),
        ({"distillation": {"method": "dfxx"}}, {"/distillation/method"}),
        ({"distillation": {"method": "dfxx", "method_options": {"width": 8}}}, {"/distillation/method"}),
        (
            {"distillation": {"method": "rdskd", "method_options": {"adv_weight": 1.0}}},
            {"/distillation/method_options/adv_weight"},
        ),
        (
            {"distillation": {"method": "mad", "method_options": {"name": "dfad", "width": 0}}},
            {"/distillation/method_options/name", "/distillation/method_options/width"},
        ),
        (
            {"distillation": {"method": "rdskd", "method_options": {"epoch_updates": 1}}},
            {"/distillation/method_options"},
        ),
        ({"teacher": {"input": {"shape": [1, 2]}}}, {"/teacher/input/shape"}),
        ({"teacher": {"input": {"shape": [1, 0, 2]}}}, {"/teacher/input/shape/1"}),
        ({"teacher": {"input": {"shape": [1, 2, 3], "mean": [0.1, 0.2], "std": [1.0, 1.0]}}}, {"/teacher/input"}),
        ({"teacher": {"id": "a" * 64}}, {"/teacher/id"}),
        ({"labels": {"not good": "x", "good": "not good"}}, {"/labels/not good", "/labels/good"}),
        ({"name": "<script>"}, {"/name"}),
        ({"state": "succeeded", "id": "1", "priority": 9}, {"/state", "/id", "/priority"}),
        ({"__class__": 1, "__proto__": {}}, {"/__class__", "/__proto__"}),
        ({"export": {"opset": 7}, "accept": {"on_miss": "shrug"}}, {"/export/opset", "/accept/on_miss"}),
    ],
)
def test_a_wrong_field_is_named_by_its_pointer(document: dict[str, Any], pointers: set[str]) -> None:
    assert set(complaints(**document)) == pointers


def test_a_complaint_never_repeats_the_value() -> None:
    canary = "canary-5d3c"
    document = {
        "name": canary * 9,
        "labels": {"a": f"{canary} x"},
        "teacher": {"format": canary, "num_classes": canary},
        "distillation": {"method": canary, "memory": canary, "seed": canary, "budget": canary},
    }
    found = complaints(**document)
    assert len(found) == 8
    assert canary not in json.dumps(found)


def test_an_unknown_key_comes_with_the_nearest_known_one_and_its_siblings() -> None:
    found = complaints(distillation={"budget": {"stepps": 3}, "method_options": {"bn_wieght": 1.0}})
    assert found["/distillation/budget/stepps"].startswith("unknown key; did you mean steps? Known here: ")
    assert "; did you mean bn_weight? Known here: " in found["/distillation/method_options/bn_wieght"]


def test_a_key_in_the_wrong_place_comes_with_its_place() -> None:
    found = complaints(temperature=4.0, teacher={"mean": [0.5]}, distillation={"architecture": "resnet8"})
    assert "there is distillation.training.temperature" in found["/temperature"]
    assert "there is teacher.input.mean" in found["/teacher/mean"]
    assert "there is teacher.architecture and student.architecture" in found["/distillation/architecture"]


def test_an_unknown_name_comes_with_the_nearest_known_one() -> None:
    found = complaints(distillation={"method": "deep_inversion", "memory": "reservoire", "preset": "papers"})
    assert "did you mean deepinversion?" in found["/distillation/method"]
    assert "did you mean reservoir?" in found["/distillation/memory"]
    assert found["/distillation/preset"] == "must be one of default, paper, paper-reconstructed; did you mean paper?"
    assert complaints(student="resnet8") == {"/student": 'must be an object, such as {"architecture": …}'}


@pytest.mark.parametrize(
    ("written", "meant"),
    [("ResNet-18", "resnet18"), ("resnet_8", "resnet8"), ("lenet", "lenet5"), ("teachr", "teacher")],
)
def test_a_misspelled_student_comes_with_the_nearest_known_one(written: str, meant: str) -> None:
    with pytest.raises(StudentError, match=rf"did you mean {meant}\?"):
        read(student={"architecture": written})


def test_a_student_that_nobody_knows_is_refused_without_its_teacher() -> None:
    with pytest.raises(StudentError) as caught:
        read(student={"architecture": "os.system"})
    assert caught.value.pointer == "/student/architecture"
    assert "os.system" not in caught.value.detail
    assert "lenet5_half" in str(caught.value.hint)


def test_a_thousand_complaints_are_cut_short() -> None:
    assert len(complaints(**{f"k{index}": index for index in range(1000)})) == MAX_ERRORS


def test_an_unfit_key_is_blamed_on_its_parent() -> None:
    assert set(complaints(student={"architecture": "x", "\u202e" + "k" * 100: 1})) == {"/student"}


def test_a_request_is_a_spec_whose_teacher_has_an_id() -> None:
    told = {"id": "a" * 64, "num_classes": 10}
    spec, teacher_id = read_request(json.dumps({**STUDENT, "teacher": told}).encode(), max_bytes=9999)
    assert teacher_id == "a" * 64
    assert spec == read(teacher={"num_classes": 10})


@pytest.mark.parametrize("teacher", [{}, {"id": "A" * 64}, {"id": "../../etc/passwd"}, {"id": 7}, None])
def test_a_request_without_a_proper_id_is_refused(teacher: Any) -> None:
    with pytest.raises(ValidationFailed) as caught:
        read_request(json.dumps({**STUDENT, "teacher": teacher}).encode(), max_bytes=9999)
    assert {error.pointer for error in caught.value.errors} <= {"/teacher", "/teacher/id"}


@pytest.mark.parametrize("params", ["25", "250%", "x", 0, -3, 2.5])
def test_a_wrong_number_of_parameters_is_one_mistake_in_one_sentence(params: Any) -> None:
    found = complaints(student={"architecture": "teacher", "params": params})
    assert found == {"/student/params": 'must be a number of parameters, or a share of the teacher\'s such as "25%"'}


def test_a_bound_that_only_keeps_zero_out_is_said_as_that() -> None:
    found = complaints(teacher={"input": {"mean": [0.5], "std": [0]}})
    assert found == {"/teacher/input/std/0": "must be greater than 0"}
    assert "after validation" not in complaints(teacher={"input": {"range": [255]}})["/teacher/input/range"]
