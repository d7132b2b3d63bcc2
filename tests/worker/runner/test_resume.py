"""The real runner is killed with SIGKILL in the middle of its work; the next one goes on to the same student."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dfkd_core.progress import Phase
from dfkd_core.sandbox.launch import Sandbox, SandboxKind
from dfkd_core.spec.config import DistillSpec
from tests.e2e.teacher import NUM_CLASSES, write_teacher
from tests.patience import PATIENCE, until
from worker.runner import process
from worker.runner.protocol import DoneMessage, Message, Task, UpdateMessage

SMALL = {
    "method": "deepinversion",
    "method_options": {"batch_size": 16, "warmup_rounds": 2, "steps": 6},
    "memory_options": {"capacity": 128},
    "training": {"batch_size": 16, "updates_per_round": 6, "replays_per_round": 16},
    "procedural": {
        "share": 0.5,
        "images_per_round": 32,
        "capacity": 200,
        "refinement": {"images_per_round": 8, "steps": 5},
    },
    "steadiness": {"probe_size": 64, "audit_size": 64, "evaluations": 2},
    "compute": {"micro_batch": 4, "chunk": 8, "label_chunk": 8},
    "seed": 7,
    "budget": {"steps": 12},
}
KILLS = [
    (Phase.REFINEMENT, True),  # between two steps
    (Phase.WARM_UP, True),  # between two steps of an inversion
    (Phase.STUDENT, False),  # between micro-batches of the update after the checkpoint
    (Phase.EVALUATION, False),  # between two chunks of the probe
    (Phase.AUDIT, False),
]
EVERY_SAFE_POINT, NEVER = 1e-6, 1e6  # seconds between two checkpoints
SPEC: dict[str, Any] = {
    "teacher": {"num_classes": NUM_CLASSES},
    "student": {"architecture": "resnet8", "width": 0.25},
    "distillation": SMALL,
}


class Attempt:
    """One runner process and the directory that it works in."""

    def __init__(self, directory: Path, *, resume_from: Path | None = None, checkpoint_seconds: float = NEVER) -> None:
        self.workspace = directory / "workspace"
        self.workspace.mkdir(parents=True)
        (directory / "inputs").mkdir()
        task = Task(
            teacher_path=write_teacher(directory / "inputs" / "teacher"),
            spec=DistillSpec.model_validate(SPEC),
            workspace=self.workspace,
            resume_from=resume_from,
            threads=1,
            device="cpu",
            checkpoint_seconds=checkpoint_seconds,
            messages_fd=-1,
            lease_until=time.monotonic() + 4 * PATIENCE,
        )
        self._spawner = ThreadPoolExecutor(1)
        self.runner = process.start(
            task,
            command=process.RUNNER_COMMAND,
            base=os.environ,
            spawner=self._spawner,
            sandbox=Sandbox(SandboxKind.OFF),
            hidden=directory / "hidden",
        )

    def messages(self) -> Iterator[Message]:
        """Yield what the runner tells until it has ended."""
        while not (self.runner.exited and self.runner.reader.exhausted):
            until(lambda: self.runner.exited or not self.runner.reader.messages.empty())
            while not self.runner.reader.messages.empty():
                yield self.runner.reader.messages.get()
            time.sleep(0.01)

    def close(self) -> None:
        self.runner.finish()
        self._spawner.shutdown()

    def student(self) -> bytes:
        """Wait for the end, and return the student's file."""
        last = list(self.messages())[-1]
        self.close()
        assert isinstance(last, DoneMessage), last
        return (self.workspace / "student.onnx").read_bytes()

    def killed_in(self, phase: Phase, *, within: bool) -> Path | None:
        """Kill the runner when it has written a checkpoint in a phase, `within` a unit of it, and return that file.

        None: the run was beyond the phase from its start.
        """
        for message in self.messages():
            kept = isinstance(message, UpdateMessage) and message.kind == "checkpoint" and message.phase == phase
            if kept and (message.done % 1 > 0 or not within):
                self.runner.kill()
                break
        else:
            self.close()
            return None
        self.close()
        return max((self.workspace / "checkpoints").glob("checkpoint-*.safetensors"))


def killed_in(phase: Phase, *, within: bool, directory: Path, resume_from: Path | None) -> Path:
    """The checkpoint of a run that was killed in a phase.

    The run goes on from another checkpoint, or begins anew where the runner before it came too far until it was dead.
    """
    names = {"resumed": resume_from, "anew": None}
    for name, start in names.items():
        attempt = Attempt(directory / name, resume_from=start, checkpoint_seconds=EVERY_SAFE_POINT)
        checkpoint = attempt.killed_in(phase, within=within)
        if checkpoint is not None:
            return checkpoint
    pytest.fail(f"no checkpoint in {phase}")


def test_a_run_that_is_killed_in_each_of_its_phases_gives_the_student_of_one_that_is_not(tmp_path: Path) -> None:
    checkpoint = None
    for phase, within in KILLS:
        checkpoint = killed_in(phase, within=within, directory=tmp_path / phase, resume_from=checkpoint)
    resumed = Attempt(tmp_path / "resumed", resume_from=checkpoint).student()
    assert resumed == Attempt(tmp_path / "uninterrupted").student()
