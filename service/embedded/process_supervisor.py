"""Child processes that are kept alive: started in order, restarted when they die, stopped in reverse order."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_READY_SECONDS = 3.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 30.0  # a child that ran at least this long is restarted after the shortest pause


class SupervisedProcess:
    """One program that has to run.

    `ready_file`: the program is ready as soon as this file exists; without it, as soon as it runs.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        stop_seconds: float,
        environment: Mapping[str, str] | None = None,
        ready_file: Path | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._stop_seconds = stop_seconds
        self._environment = None if environment is None else dict(environment)
        self._ready_file = ready_file
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._start_at = 0.0

    def ensure_running(self) -> None:
        """Start the program if it does not run and the pause after its death is over."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._schedule_restart(status)
        if time.monotonic() >= self._start_at:
            self._start()

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL if the program still runs after `stop_seconds`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            log.error("child did not stop and is killed", extra={"child": self.name})
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        """Start the program in a session of its own, so that Ctrl-C does not reach it.

        A launcher makes the kernel end the program when this process dies.
        """
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        launcher = [sys.executable, "-P", "-m", "dfkd_core.sandbox.process_tuning", str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, *self._command], env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._started_at = time.monotonic()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = self._started_at + _READY_SECONDS
        while self._ready_file is not None and not self._ready_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log.error("child is not ready", extra={"child": self.name})
                return
            time.sleep(_TICK_SECONDS / 5)

    def _schedule_restart(self, status: int) -> None:
        self._process = None
        now = time.monotonic()
        steady = now - self._started_at > _STEADY_SECONDS
        self._pause_seconds = _FIRST_PAUSE_SECONDS if steady else self._pause_seconds
        self._start_at = now + self._pause_seconds
        log.error(
            "child ended and is started again",
            extra={"child": self.name, "status": status, "in_seconds": self._pause_seconds},
        )
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)


class ProcessSupervisor(threading.Thread):
    """Starts and restarts programs in one thread.

    The kernel ends a child when the thread that started it ends, so this thread lives as long as the children.
    """

    def __init__(self, processes: Sequence[SupervisedProcess]) -> None:
        super().__init__(name="process-supervisor")
        self._processes = list(processes)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Keep all programs running until `stop` is called, then stop them, the last one first."""
        try:
            while not self._stopping.is_set():
                for process in self._processes:
                    self._ensure_running(process)
                self._stopping.wait(_TICK_SECONDS)
        finally:
            for process in reversed(self._processes):
                process.stop()

    def _ensure_running(self, process: SupervisedProcess) -> None:
        try:
            process.ensure_running()
        except OSError:  # no process, no descriptors: this host may recover
            log.exception("child could not be started", extra={"child": process.name})
            self._stopping.wait(_FIRST_PAUSE_SECONDS)

    def stop(self) -> None:
        """Stop all programs and wait until they have ended."""
        self._stopping.set()
        self.join()
