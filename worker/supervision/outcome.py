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
from pathlib import Path
from typing import TypeVar

from jobs.errors import LedgerUnavailable, StorageFull
from jobs.files.artifacts import ArtifactStore
from jobs.ledger.leases import MAX_BACKOFF_SECONDS, Claim
from jobs.models import ArtifactRef, BestStudent, JobError, JobSpec
from jobs.settings import Settings
from jobs.store import Store
from worker.metrics import Class, note_ending
from worker.runner.lease_watchdog import LEASE_OVER
from worker.runner.protocol import DoneMessage, ErrorMessage, ProducedFile, StoppedMessage
from worker.supervision.attempt import Ending, Reason
from worker.supervision.heartbeat import Heartbeat
from worker.supervision.safe_open import NotOwnFile, open_produced

T = TypeVar("T")

log = logging.getLogger(__name__)

MEDIA_TYPES = {
    "student.onnx": "application/octet-stream",
    "student.safetensors": "application/octet-stream",
    "report.json": "application/json",
    "samples.png": "image/png",
}
"""The files of a job, all of them; samples only where the spec asks for them."""

OUT_OF_MEMORY = "out-of-memory"
_RETRY_SECONDS = 0.2
_AGAIN_AT_ONCE = {Reason.DRAINED, Reason.OVER_QUOTA}  # as soon as anybody may claim it
_PAGE = 500


class FilesRefused(Exception):
    """What the runner delivered is not what it announced, or not what a job delivers."""


class Conclusion:
    """Writes the end of one attempt into the ledger; every write is fenced."""

    def __init__(
        self,
        claim: Claim,
        *,
        workspace: Path,
        store: Store,
        artifacts: ArtifactStore,
        settings: Settings,
        heartbeat: Heartbeat,
    ) -> None:
        self._claim = claim
        self._job_id = claim.job.id
        self._workspace = workspace
        self._store = store
        self._artifacts = artifacts
        self._settings = settings
        self._heartbeat = heartbeat

    def conclude(self, ending: Ending, *, best: BestStudent | None, oom_killed: bool) -> None:
        """Decide and write. LedgerUnavailable when the ledger stays silent: the lease ends, a sweep takes over."""
        if ending.reason is Reason.FENCED_OUT:
            log.warning("fenced out", extra={"fence": self._claim.fence})
            note_ending(Class.FENCED_OUT)
        elif ending.reason is Reason.CANCELLED:
            self._cancelled()
        elif isinstance(ending.last, DoneMessage):
            self._deliver(ending.last, best=best)
        elif ending.reason is not None:
            self._conclude_stopped(ending.reason)
        elif isinstance(ending.last, ErrorMessage):
            self._conclude_error(ending.last, ending.log_tail)
        elif isinstance(ending.last, StoppedMessage) or ending.status == -signal.SIGTERM:
            note_ending(Class.STOPPED)
            self._release("stopped", charged=False)
        elif ending.status == LEASE_OVER:
            note_ending(Class.SELF_FENCED)
            self._release(Reason.SELF_FENCED, charged=False)
        elif oom_killed and ending.status == -signal.SIGKILL:
            self._conclude_out_of_memory("the operating system ended the runner for want of memory")
        else:
            self._conclude_crash(ending)

    def give_back(self, reason: str) -> None:
        """Back to the queue through no fault of the job."""
        self._release(reason, charged=False)

    def _conclude_stopped(self, reason: Reason) -> None:
        """We ended the runner."""
        note_ending(Class(reason.value))
        if reason is Reason.TIME_LIMIT:
            seconds = self._settings.max_running_seconds
            self.fail(JobError(code="time-limit", detail=f"the job ran for more than {seconds:.0f} s"))
        elif reason is Reason.PAUSED:
            self._pause()
        elif reason is Reason.STALLED:
            self._release(reason, charged=True)
        else:
            self._release(reason, charged=False, delayed=reason not in _AGAIN_AT_ONCE)

    def _pause(self) -> None:
        """Paused, unless somebody resumed the job meanwhile: then it goes on at once."""
        if not self._insist(lambda: self._store.paused(self._job_id, self._claim.fence)):
            self._release("resumed", charged=False, delayed=False)

    def _conclude_error(self, error: ErrorMessage, log_tail: str) -> None:
        log.error("job failed", extra={"code": error.code, "log_tail": log_tail})
        if error.code == OUT_OF_MEMORY:
            self._conclude_out_of_memory(error.detail)
        elif error.code == "storage-full":
            note_ending(Class.STORAGE_FULL)
            self._release(error.code, charged=False)
        else:
            note_ending(Class.ERROR)
            self.fail(JobError(code=error.code, detail=error.detail, hint=error.hint, stage=error.stage))

    def _conclude_out_of_memory(self, detail: str) -> None:
        note_ending(Class.OUT_OF_MEMORY)
        if not self._insist(self._ran_out_before):
            self._release(OUT_OF_MEMORY, charged=True)
            return
        hint = "Use a smaller student or a smaller batch, or a worker with more memory."
        self.fail(JobError(code=OUT_OF_MEMORY, detail=detail, hint=hint))

    def _ran_out_before(self) -> bool:
        """Whether an earlier attempt ended for want of memory, by the job's own history."""
        after = 0
        while events := self._store.events(self._job_id, after=after, limit=_PAGE):
            if any(event.kind == "released" and event.data.get("reason") == OUT_OF_MEMORY for event in events):
                return True
            after = events[-1].seq
        return False

    def _conclude_crash(self, ending: Ending) -> None:
        how = f"exit status {ending.status}" if ending.status >= 0 else signal.Signals(-ending.status).name
        log.error("runner crashed", extra={"how": how, "log_tail": ending.log_tail})
        note_ending(Class.CRASH)
        self._release(f"crashed: {how}", charged=True)

    def _deliver(self, done: DoneMessage, *, best: BestStudent | None) -> None:
        """Files first, then the row: a row never points at nothing."""
        try:
            published, refs = self._insist(lambda: self._publish(done, best))
        except FilesRefused as error:
            log.error("files refused", extra={"reason": str(error)})
            note_ending(Class.FILES_REFUSED)
            self._release(f"files refused: {error}", charged=True)
        except StorageFull:
            note_ending(Class.STORAGE_FULL)
            self._release("storage-full", charged=False)
        else:
            if published:
                note_ending(Class.PUBLISHED)
            else:
                self._cancelled()
                self._artifacts.remove_unreferenced([ref.sha256 for ref in refs], self._store.referenced)

    def _cancelled(self) -> None:
        ended = self._insist(lambda: self._store.cancelled(self._job_id, self._claim.fence))
        note_ending(Class.CANCELLED if ended else Class.FENCED_OUT)

    def _publish(self, done: DoneMessage, best: BestStudent | None) -> tuple[bool, Sequence[ArtifactRef]]:
        spec = self._claim.job.spec
        asked = isinstance(spec, JobSpec) and spec.export.samples
        wanted = {name for name in MEDIA_TYPES if asked or name != "samples.png"}
        if done.artifacts.keys() != wanted:
            raise FilesRefused(f"{sorted(done.artifacts)} instead of {sorted(wanted)}")
        with self._artifacts.keeping():
            refs = [self._put(name, produced) for name, produced in done.artifacts.items()]
            best = done.best or best
            return self._store.succeed(self._job_id, self._claim.fence, artifacts=refs, best=best), refs

    def _put(self, name: str, produced: ProducedFile) -> ArtifactRef:
        try:
            with open_produced(self._workspace, produced.path) as file:
                sha256, num_bytes = self._artifacts.put(file)
        except (FileNotFoundError, NotOwnFile) as error:
            raise FilesRefused(f"{name} is not in the workspace") from error
        if (sha256, num_bytes) != (produced.sha256, produced.bytes):
            raise FilesRefused(f"{name} is not the file that was announced")
        return ArtifactRef(name=name, sha256=sha256, bytes=num_bytes, media_type=MEDIA_TYPES[name])

    def fail(self, error: JobError) -> None:
        """End the job for good."""
        self._insist(lambda: self._store.fail(self._job_id, self._claim.fence, error=error))

    def _release(self, reason: str, *, charged: bool, delayed: bool = True) -> None:
        steps = max(0, self._claim.job.attempt - 1)
        delay_seconds = min(self._settings.backoff_seconds * 2.0**steps, MAX_BACKOFF_SECONDS) if delayed else 0.0
        log.warning("job released", extra={"reason": str(reason), "charged": charged})
        self._insist(
            lambda: self._store.release(
                self._job_id, self._claim.fence, reason=reason, charged=charged, delay_seconds=delay_seconds
            )
        )

    def _insist(self, write: Callable[[], T]) -> T:
        """Repeat while the ledger is silent and the lease is still ours: an hour's work is not thrown away lightly."""
        while True:
            try:
                return write()
            except LedgerUnavailable:
                if time.monotonic() > self._heartbeat.lease_until:
                    raise
                time.sleep(_RETRY_SECONDS)
