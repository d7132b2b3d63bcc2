"""`dfkd inspect` says only what it knows: of a network whose images have no known shape, hardly anything."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from typer.main import get_command
from typer.testing import CliRunner

from dfkd.cli.exit_codes import Exit
from dfkd.cli.main import app
from dfkd.errors import UsageError
from tests.dfkd_core.onnx_models import classifier

RUNNER = CliRunner()


@pytest.fixture
def unsized(tmp_path: Path) -> str:
    """A file that leaves height and width of its images open."""
    path = tmp_path / "teacher.onnx"
    path.write_bytes(classifier(shape=("batch", 4, "height", "width")).SerializeToString())
    return str(path)


def test_without_a_shape_nothing_is_claimed_and_the_option_is_named(unsized: str) -> None:
    shown = RUNNER.invoke(app, ["inspect", unsized])
    assert shown.exit_code == Exit.USAGE, shown.output
    words = {line.split()[0] for line in shown.output.splitlines()}
    assert words.isdisjoint({"parameters", "batchnorm", "methods", "auto", "not"})
    assert "--shape" in shown.output
    found = json.loads(RUNNER.invoke(app, ["inspect", unsized, "--json"]).output)
    assert (found["methods"], found["refused"]) == (None, None)


def test_with_its_shape_the_same_file_is_known(unsized: str) -> None:
    shown = RUNNER.invoke(app, ["inspect", unsized, "--shape", "4,4,6"])
    assert shown.exit_code == Exit.OK, shown.output
    assert {"parameters", "batchnorm", "methods"} <= {line.split()[0] for line in shown.output.splitlines()}


def test_weights_alone_need_architecture_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(save({"weight": np.zeros((2, 3), np.float32)}))
    shown = RUNNER.invoke(app, ["inspect", str(path)])
    assert shown.exit_code == Exit.USAGE, shown.output
    assert "6 numbers" in shown.output
    assert "--architecture and --shape" in shown.output


@pytest.fixture
def sized(tmp_path: Path) -> str:
    """A file that tells the shape of its images: four channels."""
    path = tmp_path / "teacher.onnx"
    path.write_bytes(classifier(shape=("batch", 4, 4, 6)).SerializeToString())
    return str(path)


def test_what_is_said_of_pixels_is_checked_and_used(sized: str) -> None:
    silent = RUNNER.invoke(app, ["inspect", sized])
    assert "input-range-unknown" in silent.output
    assert "Give --mean and --std" in silent.output
    one_for_all = RUNNER.invoke(app, ["inspect", sized, "--mean", "0.5", "--std", "0.25", "--range", "-1,1"])
    assert one_for_all.exit_code == Exit.OK, one_for_all.output
    assert "Nobody said which pixel values" not in one_for_all.output
    wrong = RUNNER.invoke(app, ["inspect", sized, "--mean", "0.5,0.4", "--std", "0.25,0.2"])
    assert wrong.exit_code == Exit.REFUSED
    assert "mean has 2 values for 4 channels" in wrong.output


def test_paths_of_set_start_at_the_root_or_in_the_teacher(sized: str) -> None:
    for path in ("teacher.input.shape", "input.shape"):
        shown = RUNNER.invoke(app, ["inspect", sized, "--set", f"{path}=[4,5,5]"])
        assert shown.exit_code == Exit.REFUSED, shown.output


def test_what_is_said_of_the_student_is_not_passed_over(sized: str) -> None:
    shown = RUNNER.invoke(app, ["inspect", sized, "--set", "student.width=0.5"])
    assert isinstance(shown.exception, UsageError)
    assert "--set student.width is for dfkd plan and dfkd submit" in str(shown.exception)


def test_a_file_with_a_spec_tells_the_same(unsized: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text('{"teacher": {"input": {"shape": [4, 4, 6], "range": [0, 1]}}, "student": {}}')
    shown = RUNNER.invoke(app, ["inspect", unsized, "--spec", str(spec)])
    assert shown.exit_code == Exit.OK, shown.output
    assert "Nobody said which pixel values" not in shown.output


def test_submit_plan_and_inspect_share_what_they_take_of_a_teacher() -> None:
    def options(command: str) -> set[str]:
        found = get_command(app).commands[command]  # type: ignore[attr-defined]  # a group has commands
        return {name for parameter in found.params for name in parameter.opts if name.startswith("--")}

    of_teachers = options("inspect") - {"--json"}
    assert of_teachers >= {"--architecture", "--shape", "--layout", "--mean", "--std", "--range", "--set", "--weights"}
    assert of_teachers <= options("submit")
    assert of_teachers <= options("plan")
