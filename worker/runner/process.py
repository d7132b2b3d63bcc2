"""A runner process as its supervisor sees it: start, lease, stop, kill, log."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import IO

from dfkd_core.sandbox.launch import Box, exit_status
from dfkd_core.sandbox.policy import Limits, Plan, python_path
from dfkd_core.sandbox.process_tuning import tuned_environment
from worker.runner.protocol import MessageReader, Task

RUNNER_COMMAND = (sys.executable, "-P", "-m", "worker.runner.main")

LOG_BYTES = 4 * 1024**2
_LOG_TAIL_BYTES = 4000
_READER_SECONDS = 15.0
_TEMPORARY = "tmp"  # below the workspace
_LARGEST_FILE_BYTES = 16 * 1024**3
_PROCESSES, _OPEN_FILES = 2048, 4096
_ALLOWED = {"PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH"}
_ALLOWED |= {"CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_VISIBLE_DEVICES"}
_ALLOWED |= {"CC", "CXX", "CUDA_HOME"}  # of torch.compile; a cache that outlives the job would be the next one's code
_ALLOWED_PREFIXES = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_")


def runner_environment(base: Mapping[str, str], *, threads: int, temporary: Path) -> dict[str, str]:
    """What a runner may know of our environment (no database, no broker, no keys), tuned for training."""
    allowed = {name: value for name, value in base.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    ours = {"TMPDIR": str(temporary), "HOME": str(temporary), "USER": "dfkd", "PYTHONPATH": python_path(base)}
    ours |= {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    return {**tuned_environment(allowed, threads=threads), **ours}


def runner_plan(
    task: Task, *, command: Sequence[str], base: Mapping[str, str], hidden: Path, memory_bytes: int | None = None
) -> Plan:
    """What a runner finds in its box: its workspace, and beside it what it is given, to read."""
    limits = Limits(
        data_bytes=memory_bytes, file_bytes=_LARGEST_FILE_BYTES, processes=_PROCESSES, open_files=_OPEN_FILES
    )
    return Plan(
        limits=limits,
        given=(task.teacher_path.parent,),
        readable=tuple(Path(word) for word in command[1:] if Path(word).is_absolute() and Path(word).is_file()),
        writable=task.workspace,
        hidden=(hidden,),
        gpu=task.device != "cpu",
        environment=runner_environment(base, threads=task.threads, temporary=task.workspace / _TEMPORARY),
    )


class Child:
    """One runner process, in a session of its own. Ends with the thread that started it (see `runner`)."""

    def __init__(self, process: "subprocess.Popen[bytes]", reader: MessageReader, log_path: Path) -> None:
        self.pid = process.pid
        self.reader = reader
        self._process = process
        self._log_path = log_path
        self._status: int | None = None

    @property
    def exited(self) -> bool:
        """Whether the process has ended; it is not reaped before `finish`, so its number stays its own."""
        if self._status is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def renew(self, until: float) -> None:
        """Tell the runner how long its lease is, on the monotonic clock. Never waits: a deaf runner is to stop."""
        self._tell(b'{"type": "lease", "until": %.6f}\n' % until)

    def terminate(self) -> None:
        """Ask for a checkpoint and a stop; through the pipe, for our signals reach the box, not what is in it."""
        self._tell(b'{"type": "stop"}\n')

    def kill(self) -> None:
        """End the runner and whatever it has started, now."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def finish(self) -> int:
        """Leave nothing of the process behind, read what it still said; return its exit status (-n for signal n)."""
        if self._status is None:
            self.kill()
            self._status = exit_status(self._process.wait())
            assert self._process.stdin is not None
            self._process.stdin.close()
            self.reader.join(_READER_SECONDS)
            self.reader.close()
        return self._status

    def _tell(self, line: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(OSError, ValueError):  # the pipe is full, or the runner is gone
            os.write(stdin.fileno(), line)

    def cap_log(self) -> None:
        """Begin the log anew when it has become too long."""
        if self._log_path.stat().st_size > LOG_BYTES:
            os.truncate(self._log_path, 0)

    def log_tail(self) -> str:
        """The last lines of what the runner printed."""
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")


def start(
    task: Task,
    *,
    command: Sequence[str],
    base: Mapping[str, str],
    spawner: Executor,
    box: Box,
    hidden: Path,
    memory_bytes: int | None = None,
) -> Child:
    """Start a runner for `task` in a box, from the spawner's thread, which must live longer.

    `messages_fd` and `parent` of the task are filled in here. The box shows neither `hidden` nor anything below it but
    the workspace, and what is given beside it.

    The kernel's parent-death signal fires when the *thread* that started a process ends.
    """
    read_end, write_end = os.pipe()
    (task.workspace / _TEMPORARY).mkdir()
    task_path = task.workspace / "task.json"
    told = task.model_copy(update={"messages_fd": write_end, "parent": box.parent()})
    task_path.write_text(told.model_dump_json())
    log_path = task.workspace.with_name("runner.log")  # not where a runner could put a link of that name
    plan = runner_plan(told, command=command, base=base, hidden=hidden, memory_bytes=memory_bytes)

    def spawn(log: IO[bytes]) -> "subprocess.Popen[bytes]":
        return box.start(
            [*command, str(task_path)],
            plan,
            directory=task.workspace,
            pass_fds=(write_end,),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            bufsize=0,
        )

    reader = MessageReader(read_end)
    try:
        with log_path.open("ab") as log:
            process = spawner.submit(spawn, log).result()
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    reader.start()
    return Child(process, reader, log_path)
