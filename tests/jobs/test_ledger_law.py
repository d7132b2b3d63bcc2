"""The law of the ledger: whatever the order of calls, the table says what a small model says.

Hypothesis draws the calls, stale ones included, against real SQLite; after each of them every job is compared, and at
the end its history.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from jobs.errors import InvalidTransition, JobNotFound
from jobs.schemas import JobError, JobState, Progress
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import artifact_ref, digest, submit
from tests.jobs.clockwork import end_pauses, expire_lease

MAX_JOBS, MAX_ATTEMPTS, MAX_CRASHES = 2, 4, 2
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
    expired: bool = False
    code: str | None = None
    fraction: float = 0.0
    checkpoint: int | None = None
    events: int = 1
    revisions: list[int] = field(default_factory=list)

    def held(self, fence: int) -> bool:
        return self.state == "running" and self.fence == fence

    def end(self, state: str, code: str | None = None) -> None:
        self.state, self.code, self.expired = state, code, False
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
        else:
            self.end("queued")


class LedgerLaw(RuleBasedStateMachine):
    """Calls in any order, by workers that may be zombies."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.store: Store = open_store(
            Settings(
                data_dir=Path(self.directory.name),
                backoff_seconds=0.0,
                max_attempts=MAX_ATTEMPTS,
                max_crashes=MAX_CRASHES,
            )
        )
        self.models: dict[str, Model] = {}

    def teardown(self) -> None:
        try:
            for model in self.models.values():
                self.history_has_no_gaps(model)
        finally:
            self.store.close()
            self.directory.cleanup()

    def fenced(self, job_id: str, lag: int) -> tuple[Model, int]:
        """A worker that was the last but `lag` to claim the job; its model is a dead one where the job is gone."""
        model = self.models.get(job_id, Model(job_id, state="deleted"))
        return model, model.fence - lag

    @precondition(lambda self: len(self.models) < MAX_JOBS)
    @rule(target=jobs)
    def submit(self) -> str:
        job = submit(self.store)
        self.models[job.id] = Model(job.id)
        return job.id

    @rule()
    def claim(self) -> None:
        claim = self.store.claim("me", 3600, 1)
        oldest = next((model for model in self.models.values() if model.state == "queued"), None)
        assert (claim and claim.job.id) == (oldest and oldest.id)
        if claim is None or oldest is None:
            return
        oldest.state, oldest.fence, oldest.attempt = "running", oldest.fence + 1, oldest.attempt + 1
        oldest.events += 1
        assert claim.fence == oldest.fence
        assert claim.checkpoint_step == oldest.checkpoint

    @rule(job_id=jobs, lag=LAG)
    def heartbeat(self, job_id: str, lag: int) -> None:
        model, fence = self.fenced(job_id, lag)
        lease = self.store.heartbeat(job_id, fence, 3600)
        if not model.held(fence):
            assert lease is None
        else:
            assert lease is not None
            assert lease.cancel_requested is model.cancel
            model.expired = False

    @rule(job_id=jobs, lag=LAG, fraction=st.floats(0, 1))
    def report(self, job_id: str, lag: int, fraction: float) -> None:
        model, fence = self.fenced(job_id, lag)
        told = self.store.record(
            job_id, fence, progress=Progress(stage="distill", fraction=fraction), events=[("stage", {})]
        )
        assert told is model.held(fence)
        if told:
            model.fraction = max(model.fraction, fraction)
            model.events += 1

    @rule(job_id=jobs, lag=LAG, step=st.integers(0, 5))
    def checkpoint(self, job_id: str, lag: int, step: int) -> None:
        model, fence = self.fenced(job_id, lag)
        kept = self.store.record_checkpoint(job_id, fence, step=step, sha256=digest(f"{job_id}{step}"))
        assert kept is model.held(fence)
        if kept:
            model.crashes = 0 if model.checkpoint is None or step > model.checkpoint else model.crashes
            model.checkpoint = step
            model.events += 1

    @rule(job_id=jobs, lag=LAG)
    def succeed(self, job_id: str, lag: int) -> None:
        model, fence = self.fenced(job_id, lag)
        published = self.store.succeed(job_id, fence, artifacts=[artifact_ref()])
        assert published is (model.held(fence) and not model.cancel)
        if published:
            model.fraction = 1.0
            model.end("succeeded")

    @rule(job_id=jobs, lag=LAG)
    def fail(self, job_id: str, lag: int) -> None:
        model, fence = self.fenced(job_id, lag)
        told = self.store.fail(job_id, fence, error=JobError(code="internal", detail="boom"))
        assert told is model.held(fence)
        if told:
            model.end("cancelled") if model.cancel else model.end("failed", "internal")

    @rule(job_id=jobs, lag=LAG)
    def confirm_cancel(self, job_id: str, lag: int) -> None:
        model, fence = self.fenced(job_id, lag)
        told = self.store.cancelled(job_id, fence)
        assert told is (model.held(fence) and model.cancel)
        if told:
            model.end("cancelled")

    @rule(job_id=jobs, lag=LAG, charged=st.booleans())
    def release(self, job_id: str, lag: int, charged: bool) -> None:
        model, fence = self.fenced(job_id, lag)
        told = self.store.release(job_id, fence, reason="drawn", charged=charged)
        assert told is model.held(fence)
        if told:
            model.give_back(charged=charged)

    @rule(job_id=jobs)
    def lose_worker(self, job_id: str) -> None:
        model = self.models.get(job_id)
        if model is not None and model.state == "running":
            expire_lease(self.store, job_id)
            model.expired = True

    @rule()
    def sweep(self) -> None:
        due = [model for model in self.models.values() if model.expired]
        for model in self.models.values():
            end_pauses(self.store, model.id)
        found = self.store.sweep()
        for model in due:
            model.give_back(charged=True)
        for state, ids in (("queued", found.expired), ("failed", found.failed), ("cancelled", found.cancelled)):
            assert ids == [model.id for model in due if model.state == state]
        # A job that the same sweep put back is due, too: there is no back-off here.
        assert found.ring == [model.id for model in self.models.values() if model.state == "queued"][:20]

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        model = self.models.get(job_id)
        try:
            self.store.request_cancel(job_id)
        except JobNotFound:
            assert model is None
        except InvalidTransition:
            assert model is not None
            assert model.state in {"succeeded", "failed"}
        else:
            assert model is not None
            if model.state == "queued":
                model.end("cancelled")
            elif not model.cancel and model.state == "running":
                model.events += 1
            model.cancel = True

    @rule(job_id=consumes(jobs))
    def delete(self, job_id: str) -> None:
        model = self.models[job_id]
        try:
            self.store.delete(job_id)
        except InvalidTransition:
            assert model.state not in ENDED
        else:
            assert model.state in ENDED
            del self.models[job_id]

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        jobs = {job.id: job for job in self.store.list(1000).jobs}
        assert list(jobs) == list(self.models)[::-1]
        for model in self.models.values():
            job = jobs[model.id]
            found = (job.state, job.fence, job.attempt, job.cancel_requested, job.progress.fraction)
            assert found == (model.state, model.fence, model.attempt, model.cancel, model.fraction)
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
