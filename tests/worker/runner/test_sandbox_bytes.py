"""The real runner in every kind of sandbox: it finds all that it needs, and its student has the same bytes."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dfkd_core.sandbox.launch import Sandbox, SandboxKind
from dfkd_core.spec.config import DistillSpec
from tests.e2e.service import spec
from tests.e2e.teacher import write_teacher
from tests.patience import PATIENCE, until
from tests.sandboxes import KINDS, sandbox_or_skip
from worker.runner import process
from worker.runner.protocol import DoneMessage, Task
from worker.supervision.context import INPUTS, WORKSPACE

SANDBOXES = [Sandbox(kind, own_proc=own_proc) for kind in KINDS for own_proc in (True, False)]


@pytest.fixture(scope="module")
def without_sandbox(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the student that a runner without a sandbox makes."""
    return student_of(Sandbox(SandboxKind.OFF), tmp_path_factory.mktemp("without_sandbox"))


def student_of(sandbox: Sandbox, data_dir: Path) -> str:
    """Run a small job to its end and return the digest of its student."""
    attempt_dir = data_dir / "work" / "job" / "1"
    for directory in (attempt_dir / INPUTS, attempt_dir / WORKSPACE):
        directory.mkdir(parents=True, mode=0o700)
    task = Task(
        teacher_path=write_teacher(attempt_dir / INPUTS / "teacher"),
        spec=DistillSpec.model_validate(spec(steps=20)),
        workspace=attempt_dir / WORKSPACE,
        resume_from=None,
        threads=1,
        device="cpu",
        checkpoint_seconds=0.5,
        messages_fd=-1,
        lease_until=time.monotonic() + 2 * PATIENCE,
    )
    with ThreadPoolExecutor(1) as spawner:
        runner = process.start(
            task, command=process.RUNNER_COMMAND, base=os.environ, spawner=spawner, sandbox=sandbox, hidden=data_dir
        )
        messages = []
        while not (runner.exited and runner.reader.exhausted):
            until(lambda: runner.exited or not runner.reader.messages.empty())
            while not runner.reader.messages.empty():
                messages.append(runner.reader.messages.get())
            time.sleep(0.01)
        assert runner.finish() == 0, runner.log_tail()
    done = messages[-1]
    assert isinstance(done, DoneMessage), done
    assert str(data_dir).encode() not in (attempt_dir / WORKSPACE / "student.onnx").read_bytes()
    assert os.uname().nodename.encode() not in (attempt_dir / WORKSPACE / "student.onnx").read_bytes()
    digest = hashlib.sha256((attempt_dir / WORKSPACE / "student.onnx").read_bytes()).hexdigest()
    assert done.artifacts["student.onnx"].sha256 == digest
    return digest


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", SANDBOXES, ids=lambda sandbox: sandbox.label.replace(" ", "-"))
def test_a_student_has_the_same_bytes_in_a_box(sandbox: Sandbox, without_sandbox: str, tmp_path: Path) -> None:
    sandbox_or_skip(sandbox.kind)
    assert student_of(sandbox, tmp_path) == without_sandbox
