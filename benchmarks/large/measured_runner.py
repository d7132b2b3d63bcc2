"""The worker's runner in a process of its own, its peak memory, and the processor time that it takes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from dfkd_core.sandbox.process_tuning import tuned_environment
from dfkd_core.spec.config import DistillSpec
from worker.runner.protocol import Task

SAMPLE_SECONDS = 0.2
JUDGED_FROM = 0.1  # of the running time, before which no prediction of the end is judged


class Runner:
    """One runner process, what it has told, and the processor time and peak memory of it and its children."""

    def __init__(
        self, teacher: Path, spec: DistillSpec, workspace: Path, resume_from: Path | None, *, threads: int
    ) -> None:
        (workspace / "tmp").mkdir(parents=True, exist_ok=True)
        read_end, write_end = os.pipe()
        task = Task(
            teacher_path=teacher,
            spec=spec,
            workspace=workspace,
            resume_from=resume_from,
            threads=threads,
            device="cpu",
            checkpoint_seconds=30.0,
            messages_fd=write_end,
            lease_until=time.monotonic() + 86400,
        )
        (workspace / "task.json").write_text(task.model_dump_json())
        command = [sys.executable, "-P", "-m", "worker.runner.main", str(workspace / "task.json")]
        environment = tuned_environment({**os.environ, "TMPDIR": str(workspace / "tmp")}, threads=threads)
        self._started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(write_end,), env=environment)
        os.close(write_end)
        os.set_blocking(read_end, False)
        self.peak_bytes = 0
        self.cpu_seconds = 0.0
        self.checkpoint: Path | None = None
        self.last: dict[str, Any] = {}
        self._predicted: list[tuple[float, float]] = []  # seconds since the start, and the predicted seconds in all
        self._messages = read_end
        self._pending = b""

    def eta_error(self, seconds: float) -> float | None:
        """Return by how much the predicted end was off at most, as a share of the `seconds` that this process ran.

        None where no end was predicted after the first tenth.
        """
        judged = [whole for elapsed, whole in self._predicted if elapsed >= JUDGED_FROM * seconds]
        return max((abs(whole - seconds) / seconds for whole in judged), default=None)

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
            times = root.cpu_times()
        except psutil.NoSuchProcess:
            return
        self.peak_bytes = max(self.peak_bytes, sum(found))
        self.cpu_seconds = times.user + times.system + times.children_user + times.children_system

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
        if message.get("eta_seconds") is not None:
            elapsed = time.monotonic() - self._started
            self._predicted.append((elapsed, elapsed + message["eta_seconds"]))
        now = (message.get("stage"), message.get("phase"), message["type"])
        if now != (self.last.get("stage"), self.last.get("phase"), self.last.get("type")):
            done = f"{message.get('done', 0):.1f}, step {message.get('step')} of {message.get('total_steps')}"
            print(f"{seconds:8.1f} s  {self.peak_bytes / 1e9:5.2f} GB  {now}  {done}", flush=True)
        self.last = message
