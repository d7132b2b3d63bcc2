"""Command-line options as a spec."""

from pathlib import Path

import pytest

from dfkd_core.spec import overrides


def test_a_path_reaches_any_depth_and_a_value_is_json_where_it_is_json() -> None:
    spec: overrides.Spec = {"distillation": {"seed": 1, "memory": "none"}}
    overrides.apply(spec, ["distillation.seed=7", "distillation.budget.steps=100", "student.architecture=lenet5"])
    overrides.apply(spec, ["teacher.input.mean=[0.5]", "accept.agreement=null", "name=a=b"])
    assert spec == {
        "distillation": {"seed": 7, "memory": "none", "budget": {"steps": 100}},
        "student": {"architecture": "lenet5"},
        "teacher": {"input": {"mean": [0.5]}},
        "accept": {"agreement": None},
        "name": "a=b",
    }


@pytest.mark.parametrize("assignment", ["seed", "=7", "a..b=1", ".a=1", "name.x=1"])
def test_an_assignment_that_makes_no_sense_is_refused(assignment: str) -> None:
    with pytest.raises(overrides.BadOption):
        overrides.apply({"name": "text"}, [assignment])


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff"])
def test_a_spec_file_holds_a_json_object(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_bytes(text)
    with pytest.raises(overrides.BadOption):
        overrides.read_spec_file(tmp_path / "spec.json")


@pytest.mark.parametrize("text", ["3,32", "3,32,0", "3,32,x", "", "3,-1,4"])
def test_a_shape_has_three_positive_numbers(text: str) -> None:
    with pytest.raises(overrides.BadOption):
        overrides.shape(text)
    assert overrides.shape("1, 28,28") == (1, 28, 28)
