"""One attempt: watch a runner until it has ended, and say why it ended."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum

from dfkd_core.sandbox.launch import Sandbox
from jobs.ledger.leases import Claim
from jobs.settings import Settings
from worker.runner import process
from worker.runner.protocol import Message, Task
from worker.supervision.checkpoints import Checkpoints
from worker.supervision.heartbeat import Heartbeat
from worker.supervision.message_consumer import Listener
from worker.supervision.progress_writer import Journal

log = logging.getLogger(__name__)

TICK_SECONDS = 0.05


class Reason(StrEnum):
    """Why the supervisor ended a runner; none where the runner ended by itself."""

    CANCELLED = "cancelled"
    PAUSED = "paused"
    DRAINED = "drained"
    OVER_QUOTA = "over-quota"
    TIME_LIMIT = "time-limit"
    STALLED = "stalled"
    SELF_FENCED = "self-fenced"
    FENCED_OUT = "fenced-out"


_AT_ONCE = {Reason.STALLED, Reason.SELF_FENCED, Reason.FENCED_OUT}
"""No grace: the runner hangs, or may belong to somebody else already."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a runner ended."""

    reason: Reason | None
    last: Message | None  # done, stopped or error; None where it said nothing
    status: int  # exit status; -n for signal n
    log_tail: str


class Attempt:
    """Starts one runner and stays with it. Decides everything, in one thread that never waits for the ledger."""

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
        self._kill_at: float | None = None
        self._started_at = time.monotonic()

    def run(
        self,
        heartbeat: Heartbeat,
        *,
        command: Sequence[str],
        base: Mapping[str, str],
        spawner: Executor,
        sandbox: Sandbox,
    ) -> Ending:
        """Run the task to its end, whichever that is. OSError where this host fails."""
        runner = process.start(
            self._task,
            command=command,
            base=base,
            spawner=spawner,
            sandbox=sandbox,
            hidden=self._settings.data_dir,
            memory_bytes=self._settings.runner_memory_bytes,
        )
        log.info("runner started", extra={"pid": runner.pid})
        heartbeat.tell(runner.renew)
        with Listener(
            runner.reader, self._task.workspace, journal=self._journal, checkpoints=self._checkpoints
        ) as listener:
            try:
                while not runner.exited:
                    self._decide(heartbeat, listener)
                    self._enforce(runner, listener)
                    runner.cap_log()
                    time.sleep(TICK_SECONDS)
            finally:
                heartbeat.tell(None)
                status = runner.finish()
        reason = Reason.FENCED_OUT if listener.fenced_out or heartbeat.fenced_out else self._reason
        return Ending(reason, listener.last, status, runner.log_tail())

    def _decide(self, heartbeat: Heartbeat, listener: Listener) -> None:
        """Find out whether the runner has to stop. What leaves no time overrules what does."""
        at_once = self._reason_at_once(heartbeat, listener)
        if at_once is not None:
            self._reason = self._reason if self._reason in _AT_ONCE else at_once
        elif self._reason is None:
            self._reason = self._reason_with_grace(heartbeat)

    def _reason_at_once(self, heartbeat: Heartbeat, listener: Listener) -> Reason | None:
        if heartbeat.fenced_out or listener.fenced_out:
            return Reason.FENCED_OUT
        if heartbeat.overdue:
            return Reason.SELF_FENCED
        if self._reason is None and time.monotonic() - listener.moved_at > self._settings.stall_seconds:
            return Reason.STALLED
        return None

    def _reason_with_grace(self, heartbeat: Heartbeat) -> Reason | None:
        if heartbeat.cancel_requested:
            return Reason.CANCELLED
        if heartbeat.pause_requested:
            return Reason.PAUSED
        if self._draining.is_set():
            return Reason.DRAINED
        if heartbeat.over_quota:
            return Reason.OVER_QUOTA
        running_seconds = self._claim.job.running_seconds + time.monotonic() - self._started_at
        return Reason.TIME_LIMIT if running_seconds > self._settings.max_running_seconds else None

    def _enforce(self, runner: process.RunnerProcess, listener: Listener) -> None:
        now = time.monotonic()
        if self._reason in _AT_ONCE or listener.broken or (self._kill_at is not None and now > self._kill_at):
            runner.kill()
        elif self._kill_at is None and (self._reason is not None or listener.last is not None):
            self._kill_at = now + self._settings.stop_grace_seconds  # after its last word a runner has to end, too
            if self._reason is not None:
                log.warning("runner asked to stop", extra={"reason": self._reason.value})
                runner.terminate()
