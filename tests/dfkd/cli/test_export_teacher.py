"""`dfkd export-teacher` as a process, and whether the service accepts the files that it writes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

from dfkd_core.inspection.formats.refused import TORCHSCRIPT
from tests.dfkd.cli.conftest import Here
from tests.patience import PATIENCE
from tests.service.harness import ROOT, post_parts, spec_text

NET = """
import torch
from torch import nn

print("said by somebody's code")


def build(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 96, 5), nn.BatchNorm2d(96), nn.ReLU(), nn.AdaptiveAvgPool2d(6), nn.Flatten(),
        nn.Linear(96 * 36, 64), nn.ReLU(), nn.Linear(64, classes),
    )


def broken() -> nn.Module:
    raise RuntimeError("of somebody's own making")
"""
NO_TORCH = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == "torch" else found(name, path, target)


PathFinder.find_spec = staticmethod(find_spec)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with code of a user."""
    directory = tmp_path_factory.mktemp("somebody")
    (directory / "somebodys.py").write_text(NET)
    return directory


def dfkd(place: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run `dfkd export-teacher` in that directory."""
    return subprocess.run(
        [sys.executable, "-m", "dfkd.cli.main", "export-teacher", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)]))},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def exported(place: Path) -> subprocess.CompletedProcess[str]:
    """The network exported to ONNX with `--json`."""
    done = dfkd(place, "somebodys:build", "--input", "1,32,32", "--json")
    assert done.returncode == 0, done.stderr
    return done


def test_it_says_that_it_runs_code_and_keeps_that_codes_words_off_the_output(
    exported: subprocess.CompletedProcess[str], place: Path
) -> None:
    assert "importing and running somebodys:build: your code, on this machine" in exported.stderr
    assert "said by somebody's code" in exported.stderr
    told = json.loads(exported.stdout)
    assert Path(told["path"]) == Path("teacher.onnx")
    assert told["file"]["bytes"] == (place / "teacher.onnx").stat().st_size


def test_the_service_sees_what_was_told_and_takes_the_job(
    exported: subprocess.CompletedProcess[str], place: Path, http: httpx.Client
) -> None:
    body = [
        ("spec", spec_text({"student": {"architecture": "lenet5_half"}})),
        ("teacher", (place / "teacher.onnx").read_bytes()),
    ]
    response = post_parts(http, body)
    assert response.status_code == 202, response.text
    inspection = response.json()["teacher"]["inspection"]
    assert inspection["batchnorm"] == {"status": "present", "present": 1}
    told = json.loads(exported.stdout)["inspection"]
    assert {name: told[name] for name in ("format", "opset", "parameters", "input_shape", "num_classes")} == {
        name: inspection[name] for name in ("format", "opset", "parameters", "input_shape", "num_classes")
    }
    http.post(f"/jobs/{response.json()['id']}/cancel")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.pt"], "there is no file 'nowhere.pt', and it is not package.module:name"),
        (["somebodys:broken", "--input", "1,32,32"], "RuntimeError: of somebody's own making"),
    ],
)
def test_what_is_wrong_is_said(place: Path, here: Here, arguments: list[str], words: str) -> None:
    status, _, err = here.run(place, "export-teacher", *arguments, "-o", "never")
    assert status in {2, 4}
    assert words in " ".join(err.split())
    assert not (place / "never").exists()


def test_without_torch_it_says_what_to_install(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    done = dfkd(place, "somebodys:build", "--input", "1,32,32", path=str(tmp_path))
    assert done.returncode == 2
    assert "this command needs torch" in done.stderr
    assert "dfkd[worker]" in done.stderr


@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")
def test_the_hint_for_an_archive_of_torchscript_can_be_followed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    whole = nn.Sequential(network, nn.Linear(8, 5)).eval()
    torch.jit.save(torch.jit.trace(whole, torch.randn(2, 1, 12, 12)), tmp_path / "model.pt")
    (tmp_path / "net.py").write_text("\n".join(re.findall(r"`([^`]+)`", TORCHSCRIPT)))
    done = dfkd(tmp_path, "net:build", "--input", "1,12,12", "-o", "teacher.onnx", path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "teacher.onnx").exists()
    assert "Warning" not in done.stderr
