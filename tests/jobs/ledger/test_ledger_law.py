"""The law of the ledger: whatever the order of calls, the table says what a small model says.

Hypothesis draws the calls, stale ones included, against real SQLite; after each of them every job is compared, and at
the end its history.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobs.errors import InvalidTransition, JobNotFound
from jobs.models import JobError, JobState, Progress
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import artifact_ref, digest, submit
from tests.jobs.clockwork import end_pauses, expire_lease

MAX_JOBS, MAX_ATTEMPTS, MAX_CRASHES = 2, 4, 2
SLOT = st.sampled_from([0, 0, 0, 1, 2])  # 0: a running job where there is one
WORK = (
    "heartbeat",
    "report",
    "report",
    "checkpoint",
    "checkpoint",
    "succeed",
    "fail",
    "confirm_cancel",
    "confirm_pause",
    "release",
)
ASKED = ("cancel", "pause", "pause", "resume", "submit", "delete")
VERB = st.sampled_from([*WORK, *ASKED, "release", "lose_worker", "sweep", "claim", "claim", "claim"])
LAG = st.sampled_from([0, 0, 0, 1])  # the owner mostly, a zombie sometimes
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass
class Model:
    """What a job should be."""

    id: str
    state: str = "queued"
    fence: int = 0
    attempt: int = 0
    crashes: int = 0
    cancel: bool = False
    pause: bool = False
    expired: bool = False
    code: str | None = None
    fraction: float = 0.0
    checkpoint: int | None = None
    events: int = 1
    revisions: list[int] = field(default_factory=list)

    def held(self, fence: int) -> bool:
        return self.state == "running" and self.fence == fence

    def end(self, state: str, code: str | None = None) -> None:
        self.state, self.code, self.expired, self.pause = state, code, False, False
        self.events += 1

    def give_back(self, *, charged: bool) -> None:
        if self.cancel:
            self.end("cancelled")
            return
        if charged:
            self.crashes += 1
        else:
            self.attempt -= 1
        if self.crashes >= MAX_CRASHES:
            self.end("failed", "poison")
        elif self.attempt >= MAX_ATTEMPTS:
            self.end("failed", "worker-lost")
        elif self.pause:
            self.end("paused")
            self.events += 1
        else:
            self.end("queued")


class LedgerLaw(RuleBasedStateMachine):
    """Calls in any order, by workers that may be zombies."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # nothing here must outlive a power cut, and fsync takes most of the time
        self.directory = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.store: Store = open_store(
            Settings(
                data_dir=Path(self.directory.name),
                backoff_seconds=0.0,
                max_attempts=MAX_ATTEMPTS,
                max_crashes=MAX_CRASHES,
            )
        )
        self.models: dict[str, Model] = {}
        self.ids: list[str] = []  # of deleted jobs, too

    def teardown(self) -> None:
        try:
            for model in self.models.values():
                self.history_has_no_gaps(model)
        finally:
            self.store.close()
            self.directory.cleanup()

    def drawn(self, slot: int, lag: int = 0) -> tuple[str, Model, int]:
        """A job, and a worker that was the last but `lag` to claim it."""
        running = [model.id for model in self.models.values() if model.state == "running"]
        others = [job_id for job_id in reversed(self.ids) if job_id not in running]
        job_id = (running + others)[slot % len(self.ids)]
        model = self.models.get(job_id, Model(job_id, state="deleted"))
        return job_id, model, model.fence - lag

    @initialize()
    def begin(self) -> None:
        self.submit()

    def submit(self, _slot: int = 0, _lag: int = 0, _number: int = 0) -> None:
        if len(self.models) == MAX_JOBS:
            return
        job = submit(self.store)
        self.models[job.id] = Model(job.id)
        self.ids.append(job.id)

    @rule(verb=VERB, slot=SLOT, lag=LAG, number=st.integers(0, 5))
    def act(self, verb: str, slot: int, lag: int, number: int) -> None:
        """One rule for all, because Hypothesis leaves whole rules out of many runs."""
        getattr(self, verb)(slot, lag, number)

    def claim(self, _slot: int = 0, _lag: int = 0, _number: int = 0) -> None:
        claim = self.store.claim("me", 3600, 1)
        oldest = next((model for model in self.models.values() if model.state == "queued"), None)
        assert (claim and claim.job.id) == (oldest and oldest.id)
        if claim is None or oldest is None:
            return
        oldest.state, oldest.fence, oldest.attempt = "running", oldest.fence + 1, oldest.attempt + 1
        oldest.events += 1
        assert claim.fence == oldest.fence
        assert claim.checkpoint_step == oldest.checkpoint

    def heartbeat(self, slot: int, lag: int, _number: int) -> None:
        job_id, model, fence = self.drawn(slot, lag)
        lease = self.store.heartbeat(job_id, fence, 3600)
        if not model.held(fence):
            assert lease is None
        else:
            assert lease is not None
            assert (lease.cancel_requested, lease.pause_requested) == (model.cancel, model.pause)
            model.expired = False

    def report(self, slot: int, lag: int, number: int) -> None:
        fraction = number / 5
        job_id, model, fence = self.drawn(slot, lag)
        told = self.store.record(
            job_id, fence, progress=Progress(stage="distill", fraction=fraction), events=[("stage", {})]
        )
        assert told is model.held(fence)
        if told:
            model.fraction = max(model.fraction, fraction)
            model.events += 1

    def checkpoint(self, slot: int, lag: int, step: int) -> None:
        job_id, model, fence = self.drawn(slot, lag)
        kept = self.store.record_checkpoint(job_id, fence, step=step, sha256=digest(f"{job_id}{step}"), num_bytes=7)
        assert kept is model.held(fence)
        if kept:
            model.crashes = 0 if model.checkpoint is None or step > model.checkpoint else model.crashes
            model.checkpoint = step
            model.events += 1

    def succeed(self, slot: int, lag: int, _number: int) -> None:
        job_id, model, fence = self.drawn(slot, lag)
        published = self.store.succeed(job_id, fence, artifacts=[artifact_ref()])
        assert published is (model.held(fence) and not model.cancel)
        if published:
            model.fraction = 1.0
            model.end("succeeded")

    def fail(self, slot: int, lag: int, _number: int) -> None:
        job_id, model, fence = self.drawn(slot, lag)
        told = self.store.fail(job_id, fence, error=JobError(code="internal", detail="boom"))
        assert told is model.held(fence)
        if told:
            model.end("cancelled") if model.cancel else model.end("failed", "internal")

    def confirm_cancel(self, slot: int, lag: int, _number: int) -> None:
        job_id, model, fence = self.drawn(slot, lag)
        told = self.store.cancelled(job_id, fence)
        assert told is (model.held(fence) and model.cancel)
        if told:
            model.end("cancelled")

    def confirm_pause(self, slot: int, lag: int, _number: int) -> None:
        job_id, model, fence = self.drawn(slot, lag)
        told = self.store.paused(job_id, fence)
        assert told is (model.held(fence) and (model.pause or model.cancel))
        if told and model.cancel:
            model.end("cancelled")
        elif told:
            model.attempt -= 1
            model.end("paused")

    def release(self, slot: int, lag: int, number: int) -> None:
        charged = number % 2 == 0
        job_id, model, fence = self.drawn(slot, lag)
        told = self.store.release(job_id, fence, reason="drawn", charged=charged)
        assert told is model.held(fence)
        if told:
            model.give_back(charged=charged)

    def lose_worker(self, slot: int, _lag: int, _number: int) -> None:
        job_id, model, _ = self.drawn(slot)
        if model.state == "running":
            expire_lease(self.store, job_id)
            model.expired = True

    def sweep(self, _slot: int = 0, _lag: int = 0, _number: int = 0) -> None:
        due = [model for model in self.models.values() if model.expired]
        for model in self.models.values():
            end_pauses(self.store, model.id)
        found = self.store.sweep()
        for model in due:
            model.give_back(charged=True)
        for state, ids in (("queued", found.expired), ("failed", found.failed), ("cancelled", found.cancelled)):
            assert ids == [model.id for model in due if model.state == state]
        assert found.paused == [model.id for model in due if model.state == "paused"]
        # A job that the same sweep put back is due, too: there is no back-off here.
        assert list(found.notify) == [model.id for model in self.models.values() if model.state == "queued"][:20]

    def cancel(self, slot: int, _lag: int, _number: int) -> None:
        job_id, model, _ = self.drawn(slot)
        try:
            self.store.request_cancel(job_id)
        except JobNotFound:
            assert model.state == "deleted"
        except InvalidTransition:
            assert model.state in {"succeeded", "failed"}
        else:
            assert model.state in {"queued", "running", "paused", "cancelled"}
            if model.state in {"queued", "paused"}:
                model.end("cancelled")
            elif model.state == "running" and not model.cancel:
                model.events += 1
            model.cancel = True

    def pause(self, slot: int, _lag: int, _number: int) -> None:
        _, model, _ = self.drawn(slot)
        if self.refused(self.store.request_pause, model):
            return
        if model.state == "queued":
            model.end("paused")
        elif model.state == "running" and not model.pause:
            model.pause = True
            model.events += 1

    def resume(self, slot: int, _lag: int, _number: int) -> None:
        _, model, _ = self.drawn(slot)
        if self.refused(self.store.request_resume, model):
            return
        if model.state == "paused":
            model.end("queued")
        elif model.pause:
            model.pause = False
            model.events += 1

    def refused(self, ask: Callable[[str], object], model: Model) -> bool:
        """Whether a pause or a resume is refused, and rightly so."""
        try:
            ask(model.id)
        except JobNotFound:
            assert model.state == "deleted"
        except InvalidTransition:
            assert model.state in ENDED or model.cancel
        else:
            assert model.state in {"queued", "running", "paused"}
            assert not model.cancel
            return False
        return True

    def delete(self, slot: int, _lag: int, _number: int) -> None:
        job_id, model, _ = self.drawn(slot)
        try:
            self.store.delete(job_id)
        except JobNotFound:
            assert model.state == "deleted"
        except InvalidTransition:
            assert model.state in {"queued", "running", "paused"}
        else:
            assert model.state in ENDED
            del self.models[job_id]

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        jobs = {job.id: job for job in self.store.list(1000).jobs}
        assert list(jobs) == list(self.models)[::-1]
        for model in self.models.values():
            job = jobs[model.id]
            found = (job.state, job.fence, job.attempt, job.cancel_requested, job.pause_requested)
            assert found == (model.state, model.fence, model.attempt, model.cancel, model.pause)
            assert job.progress.fraction == model.fraction
            assert (job.error and job.error.code) == model.code
            assert (job.finished_at is not None) is (model.state in ENDED)
            assert bool(job.artifacts) is (job.state is JobState.SUCCEEDED)
            model.revisions.append(job.revision)
            assert model.revisions == sorted(model.revisions)

    def history_has_no_gaps(self, model: Model) -> None:
        events = self.store.events(model.id, limit=1000)
        assert [event.seq for event in events] == list(range(1, model.events + 1))
        fences = [event.fence for event in events]
        assert fences == sorted(fences)


LedgerLaw.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
TestLedgerLaw = LedgerLaw.TestCase
