"""The runner alone: how it ends when its lease, its supervisor or its job ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dfkd_core.spec.config import DistillSpec
from tests.patience import PATIENCE, scaled, until
from tests.worker.conftest import script
from worker.runner.lease_watchdog import LEASE_OVER, ORPHANED
from worker.runner.protocol import Task


class Started:
    """A runner whose supervisor is this process."""

    def __init__(self, act: str, workspace: Path, *, lease_seconds: float, log: Path | None = None) -> None:
        read_end, write_end = os.pipe()
        task = Task(
            teacher_path=workspace / "teacher",
            spec=DistillSpec.model_validate({"student": {"architecture": "lenet5_half"}}),
            workspace=workspace,
            resume_from=None,
            threads=1,
            device="cpu",
            checkpoint_seconds=1.0,
            messages_fd=write_end,
            lease_until=time.monotonic() + lease_seconds,
        )
        (workspace / "task.json").write_text(task.model_dump_json())
        command = [*script(act), str(workspace / "task.json")]
        with open(log or os.devnull, "wb") as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=said if log else None, pass_fds=(write_end,), cwd=workspace
            )
        os.close(write_end)
        self.messages = os.fdopen(read_end, "rb")

    def lease(self, seconds: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"type": "lease", "until": time.monotonic() + seconds}).encode() + b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.messages.close()
        if self.process.stdin is not None:
            self.process.stdin.close()


@pytest.fixture
def started() -> Iterator[list[Started]]:
    runners: list[Started] = []
    yield runners
    for runner in runners:
        runner.close()


def test_a_runner_ends_at_the_end_of_its_lease(tmp_path: Path, started: list[Started]) -> None:
    runner = Started("deaf", tmp_path, lease_seconds=PATIENCE)
    started.append(runner)
    runner.messages.readline()
    renewed_at = time.monotonic()
    runner.lease(seconds=0.5)
    assert runner.process.wait(PATIENCE / 2) == LEASE_OVER  # by the new lease, not by the first one
    assert time.monotonic() - renewed_at >= 0.5


def test_a_renewed_lease_keeps_the_runner(tmp_path: Path, started: list[Started]) -> None:
    lease_seconds = scaled(0.5)
    runner = Started("deaf", tmp_path, lease_seconds=PATIENCE)
    started.append(runner)
    runner.messages.readline()
    renewed_until = time.monotonic() + 2 * lease_seconds
    while time.monotonic() < renewed_until:  # twice as long as any of its leases
        runner.lease(lease_seconds)
        time.sleep(0.05)
        assert runner.process.poll() is None


def test_a_lease_that_ended_while_the_runner_was_paused_is_over(tmp_path: Path, started: list[Started]) -> None:
    runner = Started("deaf", tmp_path, lease_seconds=PATIENCE)
    started.append(runner)
    runner.messages.readline()
    os.kill(runner.process.pid, signal.SIGSTOP)
    runner.lease(seconds=0.2)
    time.sleep(0.4)
    os.kill(runner.process.pid, signal.SIGCONT)
    assert runner.process.wait(PATIENCE / 2) == LEASE_OVER


def test_a_runner_ends_when_its_supervisor_closes_the_line(tmp_path: Path, started: list[Started]) -> None:
    runner = Started("deaf", tmp_path, lease_seconds=PATIENCE)
    started.append(runner)
    runner.messages.readline()
    assert runner.process.stdin is not None
    runner.process.stdin.close()
    assert runner.process.wait(PATIENCE / 2) == ORPHANED


def test_sigterm_asks_for_a_checkpoint_and_a_stop(tmp_path: Path, started: list[Started]) -> None:
    runner = Started("endless", tmp_path, lease_seconds=PATIENCE)
    started.append(runner)
    runner.messages.readline()
    runner.process.terminate()
    assert runner.process.wait(PATIENCE / 2) == 0
    kinds = [message.get("kind", message["type"]) for message in map(json.loads, runner.messages)]
    assert kinds[-2:] == ["checkpoint", "stopped"]


def test_sigterm_before_the_distillation_ends_the_runner_at_once(tmp_path: Path, started: list[Started]) -> None:
    runner = Started("loading", tmp_path, lease_seconds=PATIENCE)
    started.append(runner)
    runner.messages.readline()
    runner.process.terminate()
    assert runner.process.wait(PATIENCE / 2) == -signal.SIGTERM


def test_a_process_dies_with_its_parent(tmp_path: Path) -> None:
    """A parent starts `sleep` through the launcher and is then killed."""
    program = (
        "import os, subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'dfkd_core.sandbox.process_tuning', str(os.getpid()), 'sleep', '600']\n"
        "child = subprocess.Popen(command)\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=tmp_path)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    until(lambda: child.name() == "sleep")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_full_disk_is_told_by_its_name_although_the_log_is_on_it(tmp_path: Path, started: list[Started]) -> None:
    runner = Started("full_disk", tmp_path, lease_seconds=PATIENCE, log=Path("/dev/full"))
    started.append(runner)
    runner.process.wait(PATIENCE)
    assert [json.loads(line)["code"] for line in runner.messages] == ["storage-full"]
