"""`dfkd submit` with the code of a network: exported by a process of its own, here, and sent."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dfkd.cli.teacher_argument import file_or_id
from dfkd.errors import BadTeacher
from tests.dfkd.cli.conftest import Here
from tests.dfkd.two_files import export_in_two_files
from tests.patience import PATIENCE
from tests.service.harness import ROOT, Service

NET = """
import torch
from torch import nn
from layers import head


class Net(nn.Module):
    def __init__(self, classes: int = 10, hidden: int = 64):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 96, 5), nn.BatchNorm2d(96)
        self.head = head(classes, hidden)

    def forward(self, images):
        return {"features": images, "scores": self.head(self.norm(self.conv(images)).relu())}


print("said by somebody's code")
"""
LAYERS = """
from torch import nn


def head(classes, hidden):
    return nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(96 * 36, hidden), nn.ReLU(),
                         nn.Linear(hidden, classes))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a folder of somebody's code, and weights as a training script saves them."""
    directory = tmp_path_factory.mktemp("somebody")
    (directory / "nets").mkdir()
    (directory / "nets" / "my-net.py").write_text(NET)
    (directory / "nets" / "layers.py").write_text(LAYERS)
    command = [sys.executable, "-c", _SAVE]
    subprocess.run(command, cwd=directory, check=True, timeout=PATIENCE, capture_output=True)
    return directory


_SAVE = """
import sys, importlib.util, torch
sys.path.insert(0, "nets")
spec = importlib.util.spec_from_file_location("mine", "nets/my-net.py")
module = sys.modules["mine"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
torch.manual_seed(0)
net = module.Net(classes=7)
state = {f"model.{name}": tensor for name, tensor in net.state_dict().items()} | {"loss.weight": torch.ones(7)}
torch.save({"state_dict": state, "epoch": 3}, "best.ckpt")
torch.save(net, "whole.pt")
"""


def dfkd(place: Path, service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `dfkd` in that directory."""
    return subprocess.run(
        [sys.executable, "-m", "dfkd.cli.main", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DFKD_URL": service.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def jobs_of(service: Service) -> list[str]:
    """Return the ids of the newest jobs. What else a page says of them can change while other jobs end."""
    return [job["id"] for job in service.http.get("/jobs").json()["jobs"]]


NETWORK = ("submit", "nets/my-net.py:Net", "--weights", "best.ckpt", "--arg", "classes=7", "--shape", "1,32,32")


def test_code_and_weights_become_a_job(place: Path, service: Service) -> None:
    words = (*NETWORK, "--logits", "scores", "--mean", "0.3", "--std", "0.2", "--student", "lenet5_half")
    ran = dfkd(place, service, *words)
    assert ran.returncode == 0, ran.stderr
    job = service.http.get(f"/jobs/{ran.stdout.strip()}").json()
    service.http.post(f"/jobs/{job['id']}/cancel")
    assert job["teacher"]["inspection"]["num_classes"] == 7
    assert job["teacher"]["inspection"]["batchnorm"] == {"status": "present", "present": 1}
    space = job["spec"]["teacher"]["input"]
    assert (space["shape"], space["mean"], space["std"]) == ([1, 32, 32], [0.3], [0.2])
    said = ran.stderr.splitlines()
    assert said[:2] == [
        "importing and running nets/my-net.py:Net: your code, on this machine",
        "said by somebody's code",
    ]
    assert said[2:4] == [
        "took the part state_dict",
        "stripped model. from 11 names; left out 1 tensors beside them, such as loss.weight",
    ]
    assert "BatchNorm present, 1 layers" in said[-1]
    assert len(said) == 6


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (NETWORK, 4, "several outputs: features [2, 1, 32, 32], scores [2, 7]"),
        (NETWORK[:4], 4, "the shape of one image is not known hint: Say it: --shape 3,32,32."),
        (("submit", "best.ckpt"), 4, "dfkd submit mynet.py:Net --weights best.ckpt --shape C,H,W"),
        (("submit", "nowhere.onnx"), 2, "nor code such as mynet.py:Net"),
        (("submit", "best.ckpt", "--weights", "best.ckpt"), 2, "for a teacher that is given as code"),
        ((*NETWORK, "--mean", "grey"), 2, "--mean takes numbers"),
        ((*NETWORK, "--mean", "1,2", "--std", "1"), 2, "mean has 2 values for 1 channels"),
        ((*NETWORK, "--arg", "classes"), 2, "--arg takes name=value"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_sent(
    place: Path, service: Service, here: Here, *, words: tuple[str, ...], code: int, told: str
) -> None:
    before = jobs_of(service)
    status, out, err = here.run(place, *words, DFKD_URL=service.url)
    assert (status, out) == (code, "")
    assert told in " ".join(err.split())
    assert "Traceback" not in err
    assert jobs_of(service) == before


def test_models_in_two_files_are_inspected_and_submitted(place: Path, service: Service) -> None:
    export_in_two_files(place / "two.onnx")
    inspected = dfkd(place, service, "inspect", "two.onnx", "--json")
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)["inspection"]["num_classes"] == 10
    ran = dfkd(place, service, "submit", "two.onnx", "--student", "lenet5_half")
    assert ran.returncode == 0, ran.stderr
    service.http.post(f"/jobs/{ran.stdout.strip()}/cancel")


def test_the_service_names_the_way_for_a_checkpoint(place: Path, service: Service) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    for name in ("best.ckpt", "whole.pt"):
        response = service.http.post("/teachers", content=(place / name).read_bytes(), headers=octets)
        assert response.status_code == 415
        assert "dfkd submit mynet.py:Net --weights" in response.json()["hint"]
        assert "dfkd.compress(model" in response.json()["hint"]


def test_a_program_under_the_name_of_a_checkpoint_gets_the_hint_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"x" * 200)
        archive.writestr("net/code/__torch__.py", b"x" * 200)
        archive.writestr("net/constants.pkl", b"x")
    with pytest.raises(BadTeacher, match="TorchScript") as refused:
        file_or_id(str(path))
    assert "torch.jit.load" in str(refused.value.hint)
