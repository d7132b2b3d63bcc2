"""`dfkd.compress` against the real service."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import dfkd
from dfkd.client import BadTeacher, Client, Refused, Unreachable, UsageError, WaitTimeout
from dfkd.wire.job import JobView
from dfkd_core import extras
from jobs.models import BestStudent
from tests.dfkd.two_files import network
from tests.patience import PATIENCE, until
from tests.service.conftest import claim
from tests.service.harness import Finished, Service

pytestmark = pytest.mark.usefixtures("exporter_table")

SHAPE = (1, 32, 32)


def compressed(service: Service, model: Any = None, **more: Any) -> JobView:
    """Compress without waiting, and cancel the job."""
    options = {"input_shape": SHAPE, "student": "lenet5_half", "wait": False, **more}
    job = dfkd.compress(network() if model is None else model, url=service.url, **options)
    with Client(service.url) as client:
        client.cancel(job.id)
    return job


def test_a_network_becomes_a_queued_job(service: Service) -> None:
    model = network().train()
    job = compressed(service, model, mean=[0.3], std=[0.2])
    assert model.training
    assert job.state == "queued"
    assert job.teacher.inspection["batchnorm"] == {"status": "present", "present": 1}
    assert job.spec["student"]["architecture"] == "lenet5_half"
    space = job.spec["teacher"]["input"]
    assert (space["shape"], space["mean"], space["std"]) == ([1, 32, 32], [0.3], [0.2])
    assert {warning.code for warning in job.warnings}.isdisjoint({"input-range-unknown", "input-space-estimated"})


def test_every_member_of_the_spec_is_within_reach(service: Service) -> None:
    job = compressed(
        service,
        mean=0.5,
        std=torch.tensor([0.25]),
        student={"architecture": "teacher", "width": 0.25},
        spec={"name": "below", "distillation": {"seed": 7, "budget": {"steps": 70}}},
        name="above",
        distillation={"budget": {"max_seconds": 60.0}},
        teacher={"input": {"range": [0, 2]}},
        labels={"team": "vision"},
    )
    assert (job.name, job.labels) == ("above", {"team": "vision"})
    assert job.spec["student"]["width"] == 0.25
    found = job.spec["distillation"]
    assert (found["seed"], found["budget"]["steps"], found["budget"]["max_seconds"]) == (7, 70, 60.0)
    space = job.spec["teacher"]["input"]
    assert (space["mean"], space["std"], space["range"]) == ([0.5], [0.25], [0.0, 2.0])


def test_the_student_is_the_teacher_at_half_width_unless_somebody_says_otherwise(service: Service) -> None:
    assert compressed(service, student=None).spec["student"]["architecture"] == "teacher"
    named = compressed(service, student=None, spec={"student": {"architecture": "lenet5_half"}})
    assert named.spec["student"]["architecture"] == "lenet5_half"


def test_one_waits_for_the_student_and_has_its_files(service: Service, finished: Finished, tmp_path: Path) -> None:
    seen: list[JobView] = []

    def work() -> None:
        until(lambda: bool(seen))
        references = service.store.get(finished.id).artifacts
        fence = claim(service, seen[0].id)
        service.store.succeed(seen[0].id, fence, artifacts=references, best=BestStudent(step=9, agreement=0.97))

    worker = threading.Thread(target=work)
    worker.start()
    job = dfkd.compress(
        network(),
        input_shape=SHAPE,
        student="lenet5_half",
        url=service.url,
        save_to=tmp_path / "out",
        timeout_seconds=PATIENCE,
        on_update=seen.append,
    )
    worker.join()
    assert (job.state, job.terminal) == ("succeeded", True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == finished.files


def test_the_wait_may_end_before_the_job(service: Service) -> None:
    with pytest.raises(WaitTimeout) as given_up:
        compressed(service, wait=True, timeout_seconds=0.2)
    with Client(service.url) as client:
        client.cancel(given_up.value.job.id)


def test_under_one_key_there_is_one_job(service: Service) -> None:
    first, second = (compressed(service, key="compress-once") for _ in range(2))
    assert first.id == second.id


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shape": (1, 1, 32, 32)}, "without the batch"),
        ({"input_shape": (0, 32, 32)}, "input_shape is"),
        ({"mean": [0.1, 0.2], "std": [1.0]}, "mean has 2 values for 1 channels"),
        ({"mean": 0.1}, "teacher.input: mean and std come together"),
        ({"mean": 0.1, "std": 0}, "teacher.input.std.0: must be greater than 0"),
        ({"save_to": "out"}, "wait=False"),
    ],
)
def test_arguments_that_contradict_each_other_are_told_before_anything_is_sent(
    service: Service, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        compressed(service, **options)


def test_what_cannot_be_exported_is_told_before_anything_is_sent(service: Service) -> None:
    with pytest.raises(BadTeacher, match=r"a torch.nn.Module, not a function"):
        compressed(service, lambda images: images)
    with pytest.raises(BadTeacher, match="several outputs") as refused:
        compressed(service, Two())
    assert (refused.value.code, "logits=" in str(refused.value.hint)) == ("teacher-invalid", True)
    assert compressed(service, Two(), logits="b").state == "queued"
    with pytest.raises(BadTeacher) as refused:
        compressed(service, torch.nn.Sequential(network(), Rounded()))
    assert refused.value.code in {"teacher-op-unsupported", "teacher-not-differentiable"}


class Two(torch.nn.Module):
    """Returns features and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": images.mean((2, 3)), "b": self.body(images)}


class Rounded(torch.nn.Module):
    """No gradient passes this."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.round()


def test_refusals_and_an_absent_service_are_those_of_the_client(service: Service) -> None:
    with pytest.raises(Refused, match="validation-error"):
        compressed(service, distilation={})
    with pytest.raises(Unreachable):
        dfkd.compress(network(), input_shape=SHAPE, url="http://127.0.0.1:9", wait=False)


def test_an_export_needs_no_more_than_pytorch_and_its_extra(tmp_path: Path) -> None:
    others = {*extras.SERVER, *extras.WORKER} - {*extras.TEACHER, "torch", "anyio", "h11"}  # httpx brings the last two
    program = (
        "import sys\n"
        f"for name in {sorted(others)}: sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from torch import nn\n"
        "from dfkd_core.exporting.teacher import export_module\n"
        "net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))\n"
        f"export_module(net, Path({str(tmp_path / 'teacher.onnx')!r}), input_shape=[1, 8, 8])\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=PATIENCE)
    assert (tmp_path / "teacher.onnx").exists()


def test_torch_is_imported_when_it_is_called() -> None:
    program = (
        "import sys, dfkd\ncompress = dfkd.compress\n"
        "assert not {'torch', 'onnx', 'dfkd_core'} & set(sys.modules)\n"
        "try: compress(object(), input_shape=(1, 8, 8))\n"
        "except dfkd.errors.BadTeacher as error: assert 'not a object' in str(error)\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
