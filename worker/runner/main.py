"""The runner: one attempt at one job in a fresh process. It gets paths and pipes, no database and no credentials.

`python -m worker.runner.main TASK.json`
"""

import dataclasses
import errno
import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dfkd_core.errors import DfkdError, Stopped
from dfkd_core.progress import OnStep, Update
from worker.runner.lease_watchdog import LeaseWatchdog
from worker.runner.protocol import Task, line_from_message

Compress = Callable[[Task, OnStep], dict[str, Path]]
"""Does the task, reports every step to the second argument, and returns the files that it made by name."""

_PROGRESS_SECONDS = 0.25
_THROTTLED = {"progress", "beat"}
_STORAGE_FULL = {errno.ENOSPC, errno.EDQUOT}


def main() -> int:
    """Run the task in the file that the first argument names; return the exit status."""
    task = Task.model_validate_json(Path(sys.argv[1]).read_bytes())
    return run(task, compress)


def compress(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Run the distillation itself. torch is loaded here and nowhere earlier."""
    from dfkd_core.pipeline import compress as compress_teacher

    outcome = compress_teacher(
        task.teacher_path,
        task.spec,
        workspace=task.workspace,
        threads=task.threads,
        device=task.device,
        resume_from=task.resume_from,
        continued_budget=task.continued_budget,
        checkpoint_seconds=task.checkpoint_seconds,
        speed=task.speed,
        bf16_tries=task.bf16_tries,
        on_step=on_step,
    )
    return outcome.artifacts


def run(task: Task, work: Compress) -> int:
    """Do `work` and report to the supervisor. Return 0: the last message says how the work ended."""
    watchdog = LeaseWatchdog(sys.stdin.fileno(), task.lease_until)
    watchdog.start()
    reporter = Reporter(task.messages_fd, watchdog)
    try:
        reporter.send(_done(work(task, reporter.on_step), reporter))
    except Stopped:
        reporter.send({"type": "stopped"})
    except Exception as error:
        with suppress(OSError):  # the log is a file, and the error may be a full disk
            traceback.print_exc()
        reporter.send(_error(error, reporter.stage))
    return 0


class Reporter:
    """Turns updates into messages, and SIGTERM into a stop after the next checkpoint.

    Before the distillation there is nothing to save, so SIGTERM ends the process at once.
    """

    def __init__(self, descriptor: int, watchdog: LeaseWatchdog) -> None:
        self.stage = "load"
        self.best: dict[str, Any] | None = None
        self._descriptor = descriptor
        self._watchdog = watchdog
        self._stop_requested = False
        self._next_progress = 0.0

    def stop(self, *_signal: object) -> None:
        """Have the next step tell the run to write a checkpoint and stop."""
        self._stop_requested = True

    def on_step(self, update: Update) -> bool:
        """Report an update; return whether the run has to stop."""
        self._watchdog.check()
        if update.stage != self.stage and update.stage == "distill":
            signal.signal(signal.SIGTERM, self.stop)
        if update.agreement is not None and update.published_step is not None:
            self.best = {"step": update.published_step, "agreement": update.agreement}
        if update.kind not in _THROTTLED or update.stage != self.stage or time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + _PROGRESS_SECONDS
            fraction = min(1.0, max(0.0, update.fraction))  # a rounding error must not make the message invalid
            self.send({"type": "update", **dataclasses.asdict(update), "fraction": fraction})
        self.stage = update.stage
        return self._stop_requested

    def send(self, message: dict[str, Any]) -> None:
        """Write one line. Blocks while the supervisor does not read."""
        rest = line_from_message(message)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def _done(artifacts: dict[str, Path], reporter: Reporter) -> dict[str, Any]:
    return {
        "type": "done",
        "artifacts": {name: _describe_file(path) for name, path in artifacts.items()},
        "best": reporter.best,
    }


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": str(path), "sha256": digest, "bytes": path.stat().st_size}


def _error(error: Exception, stage: str) -> dict[str, Any]:
    code, detail, hint = _explanation(error, stage)
    return {"type": "error", "code": code, "detail": detail[:4000], "hint": hint and hint[:4000], "stage": stage}


def _explanation(error: Exception, stage: str) -> tuple[str, str, str | None]:
    """Return code, detail and hint. Of an unforeseen error only the class is named: its text may hold host paths."""
    if isinstance(error, DfkdError):
        return error.code, error.detail, error.hint
    if _out_of_memory(error):
        return "out-of-memory", f"there was not enough memory in stage {stage}", "Use a smaller student or batch."
    if isinstance(error, OSError) and error.errno in _STORAGE_FULL:
        return "storage-full", f"the worker's disk is full in stage {stage}", None
    return "internal", f"unexpected {type(error).__name__} in stage {stage}", "The worker's log has the details."


def _out_of_memory(error: Exception) -> bool:
    names = {f"{cls.__module__}.{cls.__name__}" for cls in type(error).__mro__}
    if isinstance(error, MemoryError) or "torch.OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
