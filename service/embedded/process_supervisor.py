"""Child processes that are kept alive: started in order, started again when they die, stopped in reverse."""

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
_APPEAR_SECONDS = 3.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 30.0  # a child that lived so long is started again without a pause that has grown


class Child:
    """One program that has to run. `appears`: a file whose presence says that it is ready."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        stop_seconds: float,
        environment: Mapping[str, str] | None = None,
        appears: Path | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._stop_seconds = stop_seconds
        self._environment = None if environment is None else dict(environment)
        self._appears = appears
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._start_at = 0.0

    def tend(self) -> None:
        """Start the program if it does not run and its pause is over."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._note_death(status)
        if time.monotonic() >= self._start_at:
            self._start()

    def stop(self) -> None:
        """SIGTERM, then, after its time, SIGKILL."""
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
        """Through a launcher that ties it to this process; in a session of its own, out of reach of Ctrl-C."""
        if self._appears is not None:
            self._appears.unlink(missing_ok=True)
        launcher = [sys.executable, "-P", "-m", "dfkd_core.sandbox.process_tuning", str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, *self._command], env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._started_at = time.monotonic()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = self._started_at + _APPEAR_SECONDS
        while self._appears is not None and not self._appears.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log.error("child is not ready", extra={"child": self.name})
                return
            time.sleep(_TICK_SECONDS / 5)

    def _note_death(self, status: int) -> None:
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


class Children(threading.Thread):
    """Tends the children in one thread: the kernel ties a child to the thread that started it, so it must last."""

    def __init__(self, children: Sequence[Child]) -> None:
        super().__init__(name="children")
        self._children = list(children)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until stopped; then none of them runs any more."""
        try:
            while not self._stopping.is_set():
                for child in self._children:
                    self._tend(child)
                self._stopping.wait(_TICK_SECONDS)
        finally:
            for child in reversed(self._children):
                child.stop()

    def _tend(self, child: Child) -> None:
        try:
            child.tend()
        except OSError:  # no process, no descriptors: this host may recover
            log.exception("child could not be started", extra={"child": child.name})
            self._stopping.wait(_FIRST_PAUSE_SECONDS)

    def stop(self) -> None:
        """Stop all, the last one first, and wait."""
        self._stopping.set()
        self.join()
