"""One attempt: watch a runner until it has ended, and say why it ended."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from jobs.claims import Claim
from jobs.errors import LedgerError
from jobs.settings import Settings
from worker import child
from worker.checkpoints import Checkpoints
from worker.heartbeat import Heartbeat
from worker.journal import Journal
from worker.messages import Message, Task, UpdateMessage

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1


class Reason(StrEnum):
    """Why the supervisor ended a runner; none where the runner ended by itself."""

    CANCELLED = "cancelled"
    DRAINED = "drained"
    TIME_LIMIT = "time-limit"
    STALLED = "stalled"
    SELF_FENCED = "self-fenced"
    FENCED_OUT = "fenced-out"


_AT_ONCE = {Reason.STALLED, Reason.SELF_FENCED, Reason.FENCED_OUT}
"""No grace: the runner hangs, or may belong to somebody else already."""


def own_file(workspace: Path, path: Path) -> Path | None:
    """The file that a runner names, if it lies in its workspace: it may name no other of this host."""
    resolved = path.resolve()
    return resolved if resolved.is_file() and resolved.is_relative_to(workspace.resolve()) else None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a runner ended."""

    reason: Reason | None
    last: Message | None  # done, stopped or error; None where it said nothing
    status: int  # exit status; -n for signal n
    log_tail: str


class Attempt:
    """Starts one runner and stays with it. Everything that happens is decided in `watch`, in one thread."""

    def __init__(
        self,
        claim: Claim,
        task: Task,
        *,
        settings: Settings,
        journal: Journal,
        checkpoints: Checkpoints,
        draining: threading.Event,
    ) -> None:
        self._claim = claim
        self._task = task
        self._settings = settings
        self._journal = journal
        self._checkpoints = checkpoints
        self._draining = draining
        self._reason: Reason | None = None
        self._last: Message | None = None
        self._kill_at: float | None = None
        self._seen: tuple[object, ...] = ()
        self._moved_at = time.monotonic()
        self._started_at = time.monotonic()

    def run(
        self, heartbeat: Heartbeat, *, command: Sequence[str], base: Mapping[str, str], spawner: Executor
    ) -> Ending:
        """Run the task to its end, whichever that is."""
        runner = child.start(self._task, command=command, base=base, spawner=spawner)
        log.info("runner started", extra={"job_id": self._claim.job.id, "pid": runner.pid})
        heartbeat.tell(runner.renew)
        try:
            self._watch(runner, heartbeat)
        finally:
            heartbeat.tell(None)
            status = runner.finish()
        self._take_rest(runner)
        if runner.reader.num_refused:
            self._log("runner messages refused", count=runner.reader.num_refused)
        return Ending(self._reason, self._last, status, runner.log_tail())

    def _watch(self, runner: child.Child, heartbeat: Heartbeat) -> None:
        while not runner.exited:
            self._take_next(runner)
            self._decide(heartbeat)
            self._enforce(runner)
            runner.cap_log()

    def _take_next(self, runner: child.Child) -> None:
        with suppress(queue.Empty):
            self._take(runner.reader.messages.get(timeout=TICK_SECONDS))
        self._guarded(self._journal.write_if_due)

    def _take_rest(self, runner: child.Child) -> None:
        """What was said before the end and not read yet, the last checkpoint above all."""
        while not runner.reader.messages.empty():
            self._take(runner.reader.messages.get_nowait())
        self._guarded(self._journal.write)

    def _take(self, message: Message) -> None:
        if self._last is not None:
            return
        if not isinstance(message, UpdateMessage):
            self._last = message
            self._kill_at = time.monotonic() + self._settings.stop_grace_seconds
            return
        signs_of_life = (message.kind, message.stage, message.step, message.fraction)
        if signs_of_life != self._seen:
            self._seen, self._moved_at = signs_of_life, time.monotonic()
        if message.kind == "checkpoint":
            self._keep_checkpoint(message)
        self._journal.take(message)

    def _keep_checkpoint(self, message: UpdateMessage) -> None:
        path = own_file(self._task.workspace, Path(str(message.data.get("path"))))
        if path is None:
            self._log("checkpoint refused", path=str(message.data.get("path"))[:200])
            return
        self._guarded(lambda: self._checkpoints.keep(path, step=message.step))

    def _guarded(self, write: Callable[[], bool]) -> None:
        """A fenced write in mid-run: False ends the attempt, trouble with the ledger or the disk does not."""
        try:
            if not write():
                self._reason = Reason.FENCED_OUT
        except FileNotFoundError:
            pass  # a checkpoint that its writer has replaced by newer ones already
        except LedgerError as error:
            self._log("ledger write failed", reason=str(error))

    def _decide(self, heartbeat: Heartbeat) -> None:
        """Find out whether the runner has to stop. What leaves no time overrules what does."""
        at_once = self._reason_at_once(heartbeat)
        if at_once is not None:
            self._reason = self._reason if self._reason in _AT_ONCE else at_once
        elif self._reason is None:
            self._reason = self._reason_with_grace(heartbeat)

    def _reason_at_once(self, heartbeat: Heartbeat) -> Reason | None:
        if heartbeat.fenced_out:
            return Reason.FENCED_OUT
        if heartbeat.overdue:
            return Reason.SELF_FENCED
        if self._reason is None and time.monotonic() - self._moved_at > self._settings.stall_seconds:
            return Reason.STALLED
        return None

    def _reason_with_grace(self, heartbeat: Heartbeat) -> Reason | None:
        if heartbeat.cancel_requested:
            return Reason.CANCELLED
        if self._draining.is_set():
            return Reason.DRAINED
        running_seconds = self._claim.job.running_seconds + time.monotonic() - self._started_at
        return Reason.TIME_LIMIT if running_seconds > self._settings.max_running_seconds else None

    def _enforce(self, runner: child.Child) -> None:
        if self._reason in _AT_ONCE:
            runner.kill()
        elif self._kill_at is not None:
            if time.monotonic() > self._kill_at:
                runner.kill()
        elif self._reason is not None:
            self._log("runner asked to stop", reason=self._reason.value)
            runner.terminate()
            self._kill_at = time.monotonic() + self._settings.stop_grace_seconds

    def _log(self, message: str, **extra: object) -> None:
        log.warning(message, extra={"job_id": self._claim.job.id, **extra})
