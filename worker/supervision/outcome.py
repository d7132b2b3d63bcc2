"""What follows from the way a runner ended: the job is published, fails, is cancelled, or goes back to the queue.

done                                           publish
cancel                                         cancelled
pause                                          paused, not charged
drain, stop, lost lease, full disk             back to the queue, not charged
quota of the day used up                       back to the queue, not charged, until the day is over
killed, crashed, hung                          back to the queue, charged, later each time; in the end `poison`
out of memory                                  one more try, then `out-of-memory`
an error that another try would repeat         failed, with its code
too long                                       failed, `time-limit`
"""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from jobs.errors import LedgerUnavailable, StorageFull
from jobs.ledger.sweep import MAX_BACKOFF_SECONDS
from jobs.models import ArtifactRef, BestStudent, JobError, JobSpec
from worker.metrics import AttemptOutcome, count_outcome
from worker.runner.lease_watchdog import LEASE_OVER
from worker.runner.protocol import DoneMessage, ErrorMessage, ProducedFile, StoppedMessage
from worker.supervision.attempt import RunnerExit, StopReason
from worker.supervision.context import AttemptContext
from worker.supervision.heartbeat import Heartbeat
from worker.supervision.safe_open import UnsafeFile, open_in_workspace

T = TypeVar("T")

log = logging.getLogger(__name__)

MEDIA_TYPES = {
    "student.onnx": "application/octet-stream",
    "student.safetensors": "application/octet-stream",
    "report.json": "application/json",
    "samples.png": "image/png",
}
"""Every file that a job can deliver, by name. Samples are delivered only if the spec asks for them."""

OUT_OF_MEMORY = "out-of-memory"
_RETRY_SECONDS = 0.2
_WITHOUT_DELAY = {StopReason.DRAINED, StopReason.OVER_QUOTA}  # the job can be claimed again at once
_EVENTS_PER_PAGE = 500


class FilesRefused(Exception):
    """What the runner delivered is not what it announced, or not what a job delivers."""


class OutcomeHandler:
    """Writes the outcome of one attempt into the ledger and counts it. Every write is fenced.

    Every method repeats its write while the ledger is silent, and raises LedgerUnavailable when the lease ends first:
    then a sweep gives the job to another worker.
    """

    def __init__(self, context: AttemptContext, heartbeat: Heartbeat) -> None:
        self._context = context
        self._heartbeat = heartbeat

    def handle(self, runner_exit: RunnerExit, *, best: BestStudent | None, oom_killed: bool) -> None:
        """Decide what follows and write it. `oom_killed`: the kernel killed a process during the attempt."""
        reason, last, status = runner_exit.reason, runner_exit.last_message, runner_exit.status
        if reason is StopReason.FENCED_OUT:
            log.warning("fenced out", extra={"fence": self._context.fence})
            count_outcome(AttemptOutcome.FENCED_OUT)
        elif reason is StopReason.CANCELLED:
            self._cancel()
        elif isinstance(last, DoneMessage):
            self._publish(last, best)
        elif reason is not None:
            self._handle_stop(reason)
        elif isinstance(last, ErrorMessage):
            self._handle_error(last, runner_exit.log_tail)
        elif isinstance(last, StoppedMessage) or status == -signal.SIGTERM:
            self.give_back("stopped", AttemptOutcome.STOPPED)
        elif status == LEASE_OVER:
            self.give_back(StopReason.SELF_FENCED, AttemptOutcome.SELF_FENCED)
        elif oom_killed and status == -signal.SIGKILL:
            self._handle_out_of_memory("the operating system ended the runner for want of memory")
        else:
            self._handle_crash(runner_exit)

    def give_back(self, reason: str, outcome: AttemptOutcome) -> None:
        """Return the job to the queue without charging the attempt to it."""
        count_outcome(outcome)
        self._release(reason, charged=False)

    def fail(self, error: JobError, outcome: AttemptOutcome) -> None:
        """End the job for good."""
        count_outcome(outcome)
        context = self._context
        self._retry_until_lease_end(lambda: context.store.fail(context.job_id, context.fence, error=error))

    def _handle_stop(self, reason: StopReason) -> None:
        """The supervisor ended the runner."""
        outcome = AttemptOutcome(reason.value)
        if reason is StopReason.TIME_LIMIT:
            seconds = self._context.settings.max_running_seconds
            self.fail(JobError(code="time-limit", detail=f"the job ran for more than {seconds:.0f} s"), outcome)
            return
        count_outcome(outcome)
        if reason is StopReason.PAUSED:
            self._pause()
        elif reason is StopReason.STALLED:
            self._release(reason, charged=True)
        else:
            self._release(reason, charged=False, delayed=reason not in _WITHOUT_DELAY)

    def _pause(self) -> None:
        """Pause the job. If a resume came meanwhile, the job goes back to the queue and continues at once."""
        context = self._context
        if not self._retry_until_lease_end(lambda: context.store.paused(context.job_id, context.fence)):
            self._release("resumed", charged=False, delayed=False)

    def _handle_error(self, error: ErrorMessage, log_tail: str) -> None:
        log.error("job failed", extra={"code": error.code, "log_tail": log_tail})
        if error.code == OUT_OF_MEMORY:
            self._handle_out_of_memory(error.detail)
        elif error.code == "storage-full":
            self.give_back(error.code, AttemptOutcome.STORAGE_FULL)
        else:
            job_error = JobError(code=error.code, detail=error.detail, hint=error.hint, stage=error.stage)
            self.fail(job_error, AttemptOutcome.ERROR)

    def _handle_out_of_memory(self, detail: str) -> None:
        if self._retry_until_lease_end(self._ran_out_before):
            hint = "Use a smaller student or a smaller batch, or a worker with more memory."
            self.fail(JobError(code=OUT_OF_MEMORY, detail=detail, hint=hint), AttemptOutcome.OUT_OF_MEMORY)
        else:
            count_outcome(AttemptOutcome.OUT_OF_MEMORY)
            self._release(OUT_OF_MEMORY, charged=True)

    def _ran_out_before(self) -> bool:
        """Return whether the job's history holds an attempt that ended for want of memory."""
        after = 0
        while events := self._context.store.events(self._context.job_id, after=after, limit=_EVENTS_PER_PAGE):
            if any(event.kind == "released" and event.data.get("reason") == OUT_OF_MEMORY for event in events):
                return True
            after = events[-1].seq
        return False

    def _handle_crash(self, runner_exit: RunnerExit) -> None:
        status = runner_exit.status
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        log.error("runner crashed", extra={"how": how, "log_tail": runner_exit.log_tail})
        count_outcome(AttemptOutcome.CRASH)
        self._release(f"crashed: {how}", charged=True)

    def _publish(self, done: DoneMessage, best: BestStudent | None) -> None:
        """Store the files and then write the row, so that a row never points at a missing file."""
        artifacts, store = self._context.artifacts, self._context.store
        try:
            published, refs = self._retry_until_lease_end(lambda: self._store_and_succeed(done, best))
        except FilesRefused as error:
            log.error("files refused", extra={"reason": str(error)})
            count_outcome(AttemptOutcome.FILES_REFUSED)
            self._release(f"files refused: {error}", charged=True)
        except StorageFull:
            self.give_back("storage-full", AttemptOutcome.STORAGE_FULL)
        else:
            if published:
                count_outcome(AttemptOutcome.PUBLISHED)
            else:
                self._cancel()
                artifacts.remove_unreferenced([ref.sha256 for ref in refs], store.referenced)

    def _store_and_succeed(self, done: DoneMessage, best: BestStudent | None) -> tuple[bool, Sequence[ArtifactRef]]:
        """Return whether the job is published now, and what was stored for it."""
        context, spec = self._context, self._context.job.spec
        with_samples = isinstance(spec, JobSpec) and spec.export.samples
        wanted = {name for name in MEDIA_TYPES if with_samples or name != "samples.png"}
        if done.artifacts.keys() != wanted:
            raise FilesRefused(f"{sorted(done.artifacts)} instead of {sorted(wanted)}")
        with context.artifacts.keeping():
            refs = [self._store_file(name, produced) for name, produced in done.artifacts.items()]
            best = done.best or best
            return context.store.succeed(context.job_id, context.fence, artifacts=refs, best=best), refs

    def _store_file(self, name: str, produced: ProducedFile) -> ArtifactRef:
        try:
            with open_in_workspace(self._context.workspace, produced.path) as file:
                sha256, num_bytes = self._context.artifacts.put(file)
        except (FileNotFoundError, UnsafeFile) as error:
            raise FilesRefused(f"{name} is not in the workspace") from error
        if (sha256, num_bytes) != (produced.sha256, produced.bytes):
            raise FilesRefused(f"{name} is not the file that was announced")
        return ArtifactRef(name=name, sha256=sha256, bytes=num_bytes, media_type=MEDIA_TYPES[name])

    def _cancel(self) -> None:
        context = self._context
        cancelled = self._retry_until_lease_end(lambda: context.store.cancelled(context.job_id, context.fence))
        count_outcome(AttemptOutcome.CANCELLED if cancelled else AttemptOutcome.FENCED_OUT)

    def _release(self, reason: str, *, charged: bool, delayed: bool = True) -> None:
        """Return the job to the queue. A delay doubles with every attempt, up to MAX_BACKOFF_SECONDS."""
        context = self._context
        backoff_seconds = context.settings.backoff_seconds * 2.0 ** max(0, context.job.attempt - 1)
        delay_seconds = min(backoff_seconds, MAX_BACKOFF_SECONDS) if delayed else 0.0
        log.warning("job released", extra={"reason": str(reason), "charged": charged})
        self._retry_until_lease_end(
            lambda: context.store.release(
                context.job_id, context.fence, reason=reason, charged=charged, delay_seconds=delay_seconds
            )
        )

    def _retry_until_lease_end(self, write: Callable[[], T]) -> T:
        """Repeat `write` while the ledger is silent and the lease lasts: hours of work must not be lost to a pause."""
        while True:
            try:
                return write()
            except LedgerUnavailable:
                if time.monotonic() > self._heartbeat.lease_until:
                    raise
                time.sleep(_RETRY_SECONDS)
