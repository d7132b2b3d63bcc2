"""`dfkd inspect` says only what it knows: of a network whose images have no known shape, hardly anything."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from typer.testing import CliRunner

from dfkd.cli.exit_codes import Exit
from dfkd.cli.main import app
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
