"""Without a working sandbox no teacher is read, and clients, operators and commands learn the reason."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.patience import PATIENCE
from tests.sandboxes import KINDS, VARIABLE, works
from tests.service.harness import Service, holdings, problem_of, running_service

WITHOUT = {VARIABLE: "bubblewrap", "PATH": os.devnull}  # a kind of sandbox, and no place where its program could be


@pytest.fixture(scope="module")
def without_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on a host that makes no sandbox."""
    with running_service(tmp_path_factory.mktemp("without_sandbox") / "data", **WITHOUT) as running:
        yield running


def test_no_teacher_is_taken_and_nothing_of_it_is_left(without_sandbox: Service, teacher: bytes) -> None:
    before = holdings(without_sandbox)
    answer = without_sandbox.http.post(
        "/teachers", content=teacher, headers={"Content-Type": "application/octet-stream"}
    )
    problem = problem_of(answer)
    assert (answer.status_code, problem["code"]) == (503, "sandbox-unavailable")
    assert problem["hint"]
    assert "bubblewrap" not in answer.text  # what is wrong with the host is for its operator
    assert holdings(without_sandbox) == before


def test_the_service_says_that_it_is_not_ready(without_sandbox: Service) -> None:
    answer = without_sandbox.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert "sandbox" in answer.json()["missing"]


def test_the_kind_of_box_is_told(http: httpx.Client) -> None:
    told = http.get("/readyz").json()["checks"]["sandbox"]
    if os.environ.get(VARIABLE) == "off":
        assert told == "off: teachers are read without one"
    else:
        kind = next(kind for kind in KINDS if works(kind) is None)
        assert told.startswith(f"ok: {kind.value}")


@pytest.mark.parametrize(
    "command", [["-m", "worker"], ["-m", "dfkd.cli.main", "up", "--port", "0"]], ids=["worker", "up"]
)
def test_nothing_that_reads_teachers_starts(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, **WITHOUT, "DFKD_DATA_DIR": str(tmp_path / "data")}
    answer = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert answer.returncode != 0
    assert "no sandbox works on this host" in answer.stderr
    assert "not installed" in answer.stderr
    assert "DFKD_SANDBOX=off" in answer.stderr.replace("\n", " ")
