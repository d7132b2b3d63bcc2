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

from dfkd_core.sandbox.launch import Sandbox, exit_status
from dfkd_core.sandbox.policy import ResourceLimits, SandboxPolicy, python_path
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
_ALLOWED |= {"CC", "CXX", "CUDA_HOME"}  # for torch.compile; no cache outlives a job, or the next job would run it
_ALLOWED_PREFIXES = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_")


class RunnerProcess:
    """One runner process, in a session of its own. It ends with the thread that started it (see `start`)."""

    def __init__(self, process: "subprocess.Popen[bytes]", reader: MessageReader, log_path: Path) -> None:
        self.pid = process.pid
        self.reader = reader
        self._process = process
        self._log_path = log_path
        self._status: int | None = None

    @property
    def exited(self) -> bool:
        """True if the process has ended. Only `finish` reaps it, so that no other process can get its pid before."""
        if self._status is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def renew(self, until: float) -> None:
        """Send the runner the end of its lease on the monotonic clock. Never blocks: a runner that does not read is
        stopped when its lease ends.
        """
        self._write(b'{"type": "lease", "until": %.6f}\n' % until)

    def terminate(self) -> None:
        """Ask for a checkpoint and a stop, through the pipe: a signal would reach the sandbox, not the runner in it."""
        self._write(b'{"type": "stop"}\n')

    def kill(self) -> None:
        """End the runner and every process that it has started, at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def finish(self) -> int:
        """Kill what is left of the process, read its last messages, and return its exit status: -n for signal n."""
        if self._status is None:
            self.kill()
            self._status = exit_status(self._process.wait())
            assert self._process.stdin is not None
            self._process.stdin.close()
            self.reader.join(_READER_SECONDS)
            self.reader.close()
        return self._status

    def cap_log(self) -> None:
        """Empty the log file when it has grown beyond LOG_BYTES."""
        if self._log_path.stat().st_size > LOG_BYTES:
            os.truncate(self._log_path, 0)

    def log_tail(self) -> str:
        """Return the last lines that the runner printed."""
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _write(self, line: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(OSError, ValueError):  # the pipe is full, or the runner has ended
            os.write(stdin.fileno(), line)


def start(
    task: Task,
    *,
    command: Sequence[str],
    base: Mapping[str, str],
    spawner: Executor,
    sandbox: Sandbox,
    hidden: Path,
    memory_bytes: int | None = None,
) -> RunnerProcess:
    """Start a runner for `task` in the sandbox.

    The thread of `spawner` starts it and must outlive it: the kernel's parent-death signal fires when that *thread*
    ends. `messages_fd` of the task is filled in here. Of `hidden` and everything below it, the runner sees only its
    workspace and the inputs beside that. `base` is the environment from which the runner's is made.

    Raises:
        OSError: the host cannot start the process.
    """
    read_end, write_end = os.pipe()
    (task.workspace / _TEMPORARY).mkdir()
    task_path = task.workspace / "task.json"
    task_path.write_text(task.model_copy(update={"messages_fd": write_end}).model_dump_json())
    log_path = task.workspace.with_name("runner.log")  # outside the workspace, where the runner cannot put a link
    policy = runner_policy(task, command=command, base=base, hidden=hidden, memory_bytes=memory_bytes)

    def spawn(log: IO[bytes]) -> "subprocess.Popen[bytes]":
        return sandbox.start(
            [*command, str(task_path)],
            policy,
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
    return RunnerProcess(process, reader, log_path)


def runner_policy(
    task: Task, *, command: Sequence[str], base: Mapping[str, str], hidden: Path, memory_bytes: int | None = None
) -> SandboxPolicy:
    """Return what a runner finds in its sandbox: a writable workspace and, beside it, the inputs to read."""
    limits = ResourceLimits(
        data_bytes=memory_bytes, file_bytes=_LARGEST_FILE_BYTES, processes=_PROCESSES, open_files=_OPEN_FILES
    )
    return SandboxPolicy(
        limits=limits,
        inputs=(task.teacher_path.parent,),
        readable=tuple(Path(word) for word in command[1:] if Path(word).is_absolute() and Path(word).is_file()),
        writable=task.workspace,
        hidden=(hidden,),
        gpu=task.device != "cpu",
        environment=runner_environment(base, threads=task.threads, temporary=task.workspace / _TEMPORARY),
    )


def runner_environment(base: Mapping[str, str], *, threads: int, temporary: Path) -> dict[str, str]:
    """Return the part of `base` that a runner may see (no database, no broker, no keys), tuned for training."""
    allowed = {name: value for name, value in base.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    ours = {"TMPDIR": str(temporary), "HOME": str(temporary), "USER": "dfkd", "PYTHONPATH": python_path(base)}
    ours |= {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    return {**tuned_environment(allowed, threads=threads), **ours}
