"""`dfkd plan`: a table for people, JSON for programs, an exit code for scripts."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dfkd.cli.exit_codes import Exit, show_error
from dfkd.cli.main import app
from dfkd.errors import Refused, UsageError
from tests.builders import onnx_teacher, worker_speed
from tests.service.harness import Service, running_service

RUNNER = CliRunner()
STUDENT = ["--student", "lenet5_half"]


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has seen a worker of two cores."""
    with running_service(tmp_path_factory.mktemp("staffed") / "data") as running:
        running.store.worker_seen("w", host="box", slots=1, device="cpu", speed=worker_speed())
        yield running


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(onnx_teacher())
    return str(path)


def test_a_plan_is_a_table_with_a_row_for_each_effort(staffed: Service, file: str) -> None:
    shown = RUNNER.invoke(app, ["plan", file, *STUDENT, "--url", staffed.url])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0].startswith("teacher")
    assert "lenet5_half" in lines[1]
    rows = [line for line in lines if " auto (" in line]
    assert [effort for line in rows for effort in ("quick", "standard", "thorough") if effort in line] == [
        "standard", "quick", "thorough",
    ]  # fmt: skip
    assert all("min" in line or " s" in line or " h" in line for line in rows)


def test_a_plan_that_does_not_fit_exits_as_a_refusal_would(staffed: Service, file: str) -> None:
    limit = ["--set", "distillation.budget.max_seconds=0.01"]
    shown = RUNNER.invoke(app, ["plan", file, *STUDENT, *limit, "--url", staffed.url])
    assert shown.exit_code == 4
    assert "max-seconds" in shown.output


def test_a_plan_as_json_is_what_the_service_says(staffed: Service, file: str) -> None:
    shown = RUNNER.invoke(app, ["plan", file, *STUDENT, "--json", "--url", staffed.url])
    document = json.loads(shown.output)
    assert document["worker_classes"][0]["name"] == "cpu-2"
    assert document["options"][0]["chosen"]


def test_a_local_plan_measures_this_machine(file: str) -> None:
    shown = RUNNER.invoke(app, ["plan", file, *STUDENT, "--local", "--threads", "1", "--json"])
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.output)
    assert [known["name"] for known in document["worker_classes"]] == ["cpu-1"]
    assert document["options"][0]["estimate"][0]["seconds"] > 0


def test_a_local_plan_needs_the_file() -> None:
    answer = RUNNER.invoke(app, ["plan", "0" * 64, *STUDENT, "--local"])
    assert isinstance(answer.exception, UsageError)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("distillation.budget.efort=quick", "distillation.budget.efort: unknown key; did you mean effort?"),
        ("distillation.budget.effort=quik", "distillation.budget.effort: must be one of quick, standard, thorough"),
        ("distillation.budget.steps=0", "distillation.budget.steps: must be greater than or equal to 1"),
    ],
)
def test_a_local_plan_explains_a_wrong_spec_as_the_service_does(file: str, wrong: str, told: str) -> None:
    answer = RUNNER.invoke(app, ["plan", file, *STUDENT, "--local", "--set", wrong])
    assert isinstance(answer.exception, UsageError)
    assert str(answer.exception).startswith(told)


def test_a_plan_is_of_the_spec_that_its_options_ask_for(staffed: Service, file: str) -> None:
    options = ["--effort", "thorough", "--method", "dafl", "--mean", "0.3", "--std", "0.2", "--shape", "1,32,32"]
    shown = RUNNER.invoke(app, ["plan", file, *STUDENT, *options, "--layout", "nchw", "--json", "--url", staffed.url])
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.output)
    chosen = document["options"][0]
    assert (chosen["method"], chosen["effort"]) == ("dafl", "thorough")
    codes = {warning["code"] for warning in document["warnings"]}
    assert codes.isdisjoint({"input-range-unknown", "input-space-estimated"})


def test_the_output_with_the_classes_is_named_in_a_plan(staffed: Service, file: str) -> None:
    answer = RUNNER.invoke(app, ["plan", file, *STUDENT, "--teacher-output", "none-such", "--url", staffed.url])
    assert isinstance(answer.exception, Refused)


def test_a_teacher_that_is_refused_ends_a_local_plan_as_the_service_would(tmp_path: Path) -> None:
    path = tmp_path / "t.onnx"
    path.write_bytes(b"no model")
    answer = RUNNER.invoke(app, ["plan", str(path), *STUDENT, "--local"])
    assert answer.exception is not None
    assert show_error(Console(quiet=True), answer.exception) == Exit.REFUSED
