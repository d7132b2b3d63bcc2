"""One attempt: watch a runner until it has ended, and say why it ended."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from worker.runner.process import RunnerProcess
from worker.runner.protocol import Message, Task
from worker.supervision.checkpoints import Checkpoints
from worker.supervision.context import AttemptContext
from worker.supervision.heartbeat import Heartbeat
from worker.supervision.message_consumer import MessageConsumer
from worker.supervision.progress_writer import ProgressWriter

log = logging.getLogger(__name__)

TICK_SECONDS = 0.05


class StopReason(StrEnum):
    """Why the supervisor ended a runner."""

    CANCELLED = "cancelled"
    PAUSED = "paused"
    DRAINED = "drained"
    OVER_QUOTA = "over-quota"
    TIME_LIMIT = "time-limit"
    STALLED = "stalled"
    SELF_FENCED = "self-fenced"
    FENCED_OUT = "fenced-out"


_IMMEDIATE = {StopReason.STALLED, StopReason.SELF_FENCED, StopReason.FENCED_OUT}
"""Reasons to kill without grace: the runner hangs, or its job may belong to another worker already."""


@dataclass(frozen=True, slots=True)
class RunnerExit:
    """How a runner ended."""

    reason: StopReason | None  # None: the runner ended by itself
    last_message: Message | None  # done, stopped or error; None: it sent none of them
    status: int  # exit status; -n for signal n
    log_tail: str


class Attempt:
    """Starts one runner and watches it. One thread decides everything, and it never waits for the ledger."""

    def __init__(
        self,
        context: AttemptContext,
        *,
        heartbeat: Heartbeat,
        progress: ProgressWriter,
        checkpoints: Checkpoints,
        draining: threading.Event,
    ) -> None:
        self._context = context
        self._heartbeat = heartbeat
        self._progress = progress
        self._checkpoints = checkpoints
        self._draining = draining
        self._reason: StopReason | None = None
        self._kill_at: float | None = None
        self._started_at = time.monotonic()

    def run(self, task: Task, start: Callable[[Task], RunnerProcess]) -> RunnerExit:
        """Run the task until its runner has ended.

        Raises:
            OSError: this host cannot start the runner or take its messages.
        """
        heartbeat, runner = self._heartbeat, start(task)
        log.info("runner started", extra={"pid": runner.pid})
        heartbeat.on_renewal(runner.renew)
        with MessageConsumer(
            runner.reader, task.workspace, progress=self._progress, checkpoints=self._checkpoints
        ) as consumer:
            try:
                while not runner.exited:
                    self._decide(consumer)
                    self._enforce(runner, consumer)
                    runner.cap_log()
                    time.sleep(TICK_SECONDS)
            finally:
                heartbeat.on_renewal(None)
                status = runner.finish()
        reason = StopReason.FENCED_OUT if consumer.fenced_out or heartbeat.fenced_out else self._reason
        return RunnerExit(reason, consumer.last_message, status, runner.log_tail())

    def _decide(self, consumer: MessageConsumer) -> None:
        """Find out whether the runner has to stop. An immediate reason overrules one with grace."""
        immediate = self._immediate_reason(consumer)
        if immediate is not None:
            self._reason = self._reason if self._reason in _IMMEDIATE else immediate
        elif self._reason is None:
            self._reason = self._reason_with_grace()

    def _immediate_reason(self, consumer: MessageConsumer) -> StopReason | None:
        if self._heartbeat.fenced_out or consumer.fenced_out:
            return StopReason.FENCED_OUT
        if self._heartbeat.overdue:
            return StopReason.SELF_FENCED
        silent_seconds = time.monotonic() - consumer.last_progress_at
        if self._reason is None and silent_seconds > self._context.settings.stall_seconds:
            return StopReason.STALLED
        return None

    def _reason_with_grace(self) -> StopReason | None:
        lease = self._heartbeat.lease
        if lease.cancel_requested:
            return StopReason.CANCELLED
        if lease.pause_requested:
            return StopReason.PAUSED
        if self._draining.is_set():
            return StopReason.DRAINED
        if lease.over_quota:
            return StopReason.OVER_QUOTA
        running_seconds = self._context.job.running_seconds + time.monotonic() - self._started_at
        return StopReason.TIME_LIMIT if running_seconds > self._context.settings.max_running_seconds else None

    def _enforce(self, runner: RunnerProcess, consumer: MessageConsumer) -> None:
        """Kill the runner where there is no grace or the grace is over; otherwise ask it to stop, once."""
        now = time.monotonic()
        if self._reason in _IMMEDIATE or consumer.broken or (self._kill_at is not None and now > self._kill_at):
            runner.kill()
        elif self._kill_at is None and (self._reason is not None or consumer.last_message is not None):
            self._kill_at = now + self._context.settings.stop_grace_seconds  # after its last message it has to end, too
            if self._reason is not None:
                log.warning("runner asked to stop", extra={"reason": self._reason.value})
                runner.terminate()
