"""Time and peak memory of jobs with large teachers: ResNet-18 and ResNet-50 at 224 × 224, with random weights.

    python -m benchmarks.large_teachers resnet18 --set distillation.budget.effort=quick
    python -m benchmarks.large_teachers resnet50 --seconds 600 --kill-after 60

The job runs in the worker's runner, in a process of its own. The peak is the resident memory of that process and its
children, sampled five times a second. With `--seconds` the run is stopped then. With `--kill-after` it is killed with
SIGKILL after so many seconds and resumed from its last checkpoint. A line tells every phase that is reached.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.imagenet_resnets import MEAN, SIDE, STD, write_teacher
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.inspection.resolve import resolve
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec
from worker.runner.protocol import Task

DEPTHS = {"resnet18": 18, "resnet50": 50}
SAMPLE_SECONDS = 0.2


def spec_of(settings: list[str], teacher: Path) -> DistillSpec:
    """Return the spec of a student of half the width as the service resolves it, with settings as for `dfkd submit`."""
    document: dict[str, Any] = {
        "teacher": {"input": {"shape": [3, SIDE, SIDE], "mean": list(MEAN), "std": list(STD)}},
        "student": {"architecture": "teacher", "width": 0.5},
    }
    overrides.apply(document, settings)
    spec = DistillSpec.model_validate(document)
    return resolve(spec, inspect_file(teacher, spec.teacher))[0]


class Runner:
    """One runner process, what it has told, and its peak memory."""

    def __init__(self, teacher: Path, spec: DistillSpec, workspace: Path, resume_from: Path | None) -> None:
        (workspace / "tmp").mkdir(parents=True)
        read_end, write_end = os.pipe()
        task = Task(
            teacher_path=teacher,
            spec=spec,
            workspace=workspace,
            resume_from=resume_from,
            threads=torch.get_num_threads(),
            device="cpu",
            checkpoint_seconds=30.0,
            messages_fd=write_end,
            lease_until=time.monotonic() + 86400,
        )
        (workspace / "task.json").write_text(task.model_dump_json())
        command = [sys.executable, "-P", "-m", "worker.runner.main", str(workspace / "task.json")]
        environment = {**os.environ, "TMPDIR": str(workspace / "tmp")}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(write_end,), env=environment)
        os.close(write_end)
        os.set_blocking(read_end, False)
        self.peak_bytes = 0
        self.checkpoint: Path | None = None
        self.last: dict[str, Any] = {}
        self._messages = read_end
        self._pending = b""

    def watch(self, *, until: Callable[[], bool], started: float) -> None:
        """Read messages and sample the memory until the process has ended or `until` says so; then kill it."""
        while self.process.poll() is None and not until():
            time.sleep(SAMPLE_SECONDS)
            self._sample()
            for message in self._read():
                self._tell(message, time.monotonic() - started)
        self.process.kill()
        self.process.wait()
        for message in self._read():
            self._tell(message, time.monotonic() - started)

    def _sample(self) -> None:
        try:
            root = psutil.Process(self.process.pid)
            found = [process.memory_info().rss for process in [root, *root.children(recursive=True)]]
        except psutil.NoSuchProcess:
            return
        self.peak_bytes = max(self.peak_bytes, sum(found))

    def _read(self) -> list[dict[str, Any]]:
        try:
            while chunk := os.read(self._messages, 1 << 16):
                self._pending += chunk
        except BlockingIOError:
            pass
        *lines, self._pending = self._pending.split(b"\n")
        return [json.loads(line) for line in lines]

    def _tell(self, message: dict[str, Any], seconds: float) -> None:
        if message.get("kind") == "checkpoint":
            self.checkpoint = Path(message["data"]["path"])
        now = (message.get("stage"), message.get("phase"), message["type"])
        if now != (self.last.get("stage"), self.last.get("phase"), self.last.get("type")):
            done = f"{message.get('done', 0):.1f}, step {message.get('step')} of {message.get('total_steps')}"
            print(f"{seconds:8.1f} s  {self.peak_bytes / 1e9:5.2f} GB  {now}  {done}", flush=True)
        self.last = message


def main() -> None:
    """Run one job and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", choices=sorted(DEPTHS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when the run is ended")
    parser.add_argument("--kill-after", type=float, help="when the first process is killed; the job is then resumed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-teachers-") as directory:
        teacher = Path(directory) / "teacher.onnx"
        write_teacher(DEPTHS[options.teacher], teacher)
        spec = spec_of(options.set, teacher)
        print(spec.distillation.model_dump_json(include={"method", "budget", "compute"}))
        started, peak, checkpoint = time.monotonic(), 0, None
        ends = [options.kill_after] * (options.kill_after is not None) + [options.seconds]
        for number, end in enumerate(ends):
            runner = Runner(teacher, spec, Path(directory) / str(number), checkpoint)
            runner.watch(until=lambda end=end: time.monotonic() - started > end, started=started)
            peak, checkpoint = max(peak, runner.peak_bytes), runner.checkpoint
            print(f"process {number}: {runner.last.get('type')} {runner.last.get('code', '')}, checkpoint {checkpoint}")
        print(f"{options.teacher}: {time.monotonic() - started:.0f} s, peak {peak / 1e9:.2f} GB, threads {_threads()}")
        report = Path(directory) / str(len(ends) - 1) / "report.json"
        if report.exists():
            found = json.loads(report.read_text())
            print(f"agreement {found['agreement']['value']:.4f}, warnings {[one['code'] for one in found['warnings']]}")


def _threads() -> str:
    return f"{torch.get_num_threads()} of {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
