"""The worker's side of the ledger, on SQLite and on PostgreSQL."""

import time
from contextlib import closing

import pytest

from dfkd_core.notice import Notice
from jobs.ledger.attempt_end import UNCHARGED_CAP
from jobs.ledger.leases import REFUSALS, Claim
from jobs.models import SPEC_VERSION, BestStudent, Job, JobError, JobSpec, JobState, Progress
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import artifact_ref, digest, submit
from tests.jobs.clockwork import age_claim, age_spec, end_pauses, expire_lease
from tests.patience import PATIENCE

BOOM = JobError(code="internal", detail="boom")


def claimed(store: Store) -> Claim:
    claim = store.claim("me", 60, 2)
    assert claim is not None
    return claim


def running(store: Store) -> Claim:
    submit(store)
    return claimed(store)


def crash(store: Store, claim: Claim) -> Job:
    assert store.release(claim.job.id, claim.fence, reason="died", charged=True)
    return store.get(claim.job.id)


def test_the_oldest_job_is_claimed_first(store: Store) -> None:
    ids = [submit(store).id for _ in range(3)]
    assert [claimed(store).job.id for _ in ids] == ids
    assert store.claim("me", 60, 2) is None


def test_a_claim_raises_the_fence_and_the_attempt_and_starts_the_clock(store: Store) -> None:
    claim = running(store)
    job = claim.job
    assert (job.state, job.fence, job.attempt, job.threads, claim.fence) == (JobState.RUNNING, 1, 1, 2, 1)
    assert job.started_at is not None
    assert job.claimed_at is not None
    assert job.heartbeat_at is not None
    assert job == store.get(job.id)


def test_the_threads_of_the_first_claim_stay(store: Store) -> None:
    claim = running(store)
    store.release(claim.job.id, claim.fence, reason="drained", charged=False)
    again = store.claim("other", 60, 8)
    assert again is not None
    assert again.job.threads == 2


def test_a_job_that_must_wait_is_passed_over(store: Store) -> None:
    claim = running(store)
    later = submit(store)
    store.release(claim.job.id, claim.fence, reason="disk full", charged=False, delay_seconds=60)
    assert claimed(store).job.id == later.id
    assert store.claim("me", 60, 2) is None
    end_pauses(store, claim.job.id)
    assert claimed(store).job.id == claim.job.id


OTHER_VERSIONS_SPECS = ['{"student": {"architecture": "lenet5_half"}, "distillation": {"memory": "dream"}}', "[1", ""]


@pytest.mark.parametrize("spec", OTHER_VERSIONS_SPECS)
def test_a_spec_of_another_version_blocks_nothing(store: Store, spec: str) -> None:
    unreadable, next_in_line = submit(store), submit(store)
    age_spec(store, unreadable.id, spec)
    claim = claimed(store)
    assert (claim.job.id, claim.spec) == (next_in_line.id, next_in_line.spec)
    job = store.get(unreadable.id)
    assert (job.state, job.attempt, job.fence, job.started_at, job.running_seconds) == ("failed", 0, 0, None, 0)
    assert job.error is not None
    assert (job.error.code, job.finished_at is not None) == ("spec-unreadable", True)
    history = store.events(unreadable.id)
    assert [event.kind for event in history] == ["created", "failed"]
    assert history[-1].data == job.error.model_dump()
    assert store.claim("me", 60, 2) is None


def test_many_specs_of_another_version_fail_in_a_few_polls(store: Store) -> None:
    jobs = [submit(store) for _ in range(REFUSALS + 1)]
    for job in jobs[:-1]:
        age_spec(store, job.id, "{}")
    assert store.claim("me", 60, 2) is None  # as many as one transaction may refuse
    assert claimed(store).job.id == jobs[-1].id
    assert store.statistics(worker_seconds=60.0).jobs[JobState.FAILED] == REFUSALS


def test_a_spec_of_a_newer_version_is_left_to_newer_workers(store: Store) -> None:
    newer = [submit(store) for _ in range(REFUSALS + 1)]
    next_in_line = submit(store)
    for job in newer:
        age_spec(store, job.id, OTHER_VERSIONS_SPECS[0], version=SPEC_VERSION + 1)
    assert claimed(store).job.id == next_in_line.id
    assert store.claim("me", 60, 2) is None
    assert store.get(newer[0].id).state is JobState.QUEUED
    assert [event.kind for event in store.events(newer[0].id)] == ["created"]
    age_spec(store, newer[0].id, next_in_line.spec.model_dump_json())  # what a newer worker sees
    assert claimed(store).job.id == newer[0].id


def test_a_spec_that_becomes_unreadable_between_two_attempts_ends_the_job(store: Store) -> None:
    claim = running(store)
    assert isinstance(claim.job.spec, JobSpec)
    age_spec(store, claim.job.id, "{}")
    assert store.heartbeat(claim.job.id, claim.fence, 60) is not None
    assert store.release(claim.job.id, claim.fence, reason="drained", charged=False)
    assert store.claim("me", 60, 2) is None
    assert store.get(claim.job.id).state is JobState.FAILED


def test_a_heartbeat_renews_the_lease_and_carries_the_cancel(store: Store) -> None:
    submit(store)
    claim = claimed(store)
    expire_lease(store, claim.job.id)  # and no sweep has seen it yet
    lease = store.heartbeat(claim.job.id, claim.fence, 60)
    assert lease is not None
    assert not lease.cancel_requested
    assert store.sweep().expired == []
    store.request_cancel(claim.job.id)
    lease = store.heartbeat(claim.job.id, claim.fence, 60)
    assert lease is not None
    assert lease.cancel_requested


def test_a_zombie_changes_nothing(store: Store) -> None:
    zombie = running(store)
    expire_lease(store, zombie.job.id)
    store.sweep()
    owner = claimed(store)
    before, history = store.get(owner.job.id), store.events(owner.job.id)
    job_id, fence = zombie.job.id, zombie.fence
    assert store.heartbeat(job_id, fence, 60) is None
    assert not store.record(job_id, fence, progress=Progress(fraction=0.9), events=[("stage", {})])
    assert not store.record(job_id, fence, warnings=[Notice(code="c", detail="d")])
    assert not store.record_checkpoint(job_id, fence, step=9, sha256=digest("zombie"), num_bytes=7)
    assert not store.succeed(job_id, fence, artifacts=[artifact_ref()])
    assert not store.fail(job_id, fence, error=BOOM)
    assert not store.cancelled(job_id, fence)
    assert not store.release(job_id, fence, reason="late", charged=True)
    assert (store.get(job_id), list(store.events(job_id))) == (before, list(history))


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_terminal_state_is_for_ever(store: Store, end: str) -> None:
    claim = running(store)
    job_id, fence = claim.job.id, claim.fence
    if end == "succeeded":
        assert store.succeed(job_id, fence, artifacts=[artifact_ref()])
    elif end == "failed":
        assert store.fail(job_id, fence, error=BOOM)
    else:
        store.request_cancel(job_id)
        assert store.cancelled(job_id, fence)
    before = store.get(job_id)
    assert before.state == end
    assert before.finished_at is not None
    assert not store.succeed(job_id, fence, artifacts=[])
    assert not store.fail(job_id, fence, error=BOOM)
    assert not store.release(job_id, fence, reason="r", charged=False)
    assert store.heartbeat(job_id, fence, 60) is None
    store.sweep()
    assert store.get(job_id) == before


def test_success_publishes_files_and_student_in_one_step(store: Store) -> None:
    claim = running(store)
    files = [artifact_ref("report.json", "r"), artifact_ref("student.onnx", "s")]
    best = BestStudent(step=10, agreement=0.97)
    assert store.get(claim.job.id).artifacts == []
    assert store.succeed(claim.job.id, claim.fence, artifacts=files, best=best)
    job = store.get(claim.job.id)
    assert (job.state, job.artifacts, job.best) == (JobState.SUCCEEDED, files, best)
    assert (job.progress.stage, job.progress.fraction) == ("done", 1.0)
    assert store.list(1).jobs == [job]


def test_a_cancel_that_came_first_wins_over_success_failure_and_release(store: Store) -> None:
    for end in ("succeed", "fail", "release", "sweep"):
        claim = running(store)
        store.request_cancel(claim.job.id)
        if end == "succeed":
            assert not store.succeed(claim.job.id, claim.fence, artifacts=[artifact_ref()])
            assert store.cancelled(claim.job.id, claim.fence)
        elif end == "fail":
            assert store.fail(claim.job.id, claim.fence, error=BOOM)
        elif end == "release":
            assert store.release(claim.job.id, claim.fence, reason="drained", charged=False)
        else:
            expire_lease(store, claim.job.id)
            assert store.sweep().cancelled == [claim.job.id]
        job = store.get(claim.job.id)
        assert (job.state, job.artifacts, job.error) == (JobState.CANCELLED, [], None)


def test_nobody_is_cancelled_who_was_not_asked_to(store: Store) -> None:
    claim = running(store)
    assert not store.cancelled(claim.job.id, claim.fence)
    assert store.get(claim.job.id).state is JobState.RUNNING


def test_a_failure_tells_where_and_when(store: Store) -> None:
    claim = running(store)
    store.record(claim.job.id, claim.fence, progress=Progress(stage="distill"))
    store.fail(claim.job.id, claim.fence, error=JobError(code="distillation-diverged", detail="NaN at step 3"))
    job = store.get(claim.job.id)
    assert job.error == JobError(code="distillation-diverged", detail="NaN at step 3", stage="distill", attempt=1)


def test_the_fraction_never_falls_not_even_across_attempts(store: Store) -> None:
    claim = running(store)
    store.record(claim.job.id, 1, progress=Progress(stage="distill", fraction=0.6, step=60, agreement=0.9))
    store.record(claim.job.id, 1, progress=Progress(stage="distill", fraction=0.4, step=61))
    store.release(claim.job.id, 1, reason="drained", charged=False)
    claimed(store)
    store.record(claim.job.id, 2, progress=Progress(stage="load", fraction=0.01, step=0))
    progress = store.get(claim.job.id).progress
    assert (progress.fraction, progress.stage, progress.step, progress.agreement) == (0.6, "load", 0, 0.9)
    store.record(claim.job.id, 2, progress=Progress(stage="distill", fraction=0.7, step=70))
    assert store.get(claim.job.id).progress.fraction == 0.7


def test_a_warning_is_kept_once(store: Store) -> None:
    claim = running(store)
    first, second = Notice(code="a", detail="x"), Notice(code="b", detail="y", hint="z")
    store.record(claim.job.id, 1, warnings=[first])
    store.record(claim.job.id, 1, warnings=[second, first, second])
    assert store.get(claim.job.id).warnings == [first, second]


def test_every_change_raises_the_revision(store: Store) -> None:
    claim = running(store)
    job_id, revisions = claim.job.id, [claim.job.revision]
    changes = [
        lambda: store.heartbeat(job_id, 1, 60),
        lambda: store.record(job_id, 1, progress=Progress(fraction=0.1)),
        lambda: store.record(job_id, 1, best=BestStudent(step=1, agreement=0.5)),
        lambda: store.record_checkpoint(job_id, 1, step=1, sha256=digest("c"), num_bytes=7),
        lambda: store.request_cancel(job_id),
        lambda: store.cancelled(job_id, 1),
    ]
    for change in changes:
        before = store.get(job_id)
        change()
        after = store.get(job_id)
        assert after.updated_at >= before.updated_at
        revisions.append(after.revision)
    assert revisions == sorted(set(revisions))


def test_the_last_two_checkpoints_are_handed_to_the_next_claim(store: Store) -> None:
    claim = running(store)
    assert (claim.checkpoint_sha256, claim.previous_checkpoint_sha256) == (None, None)
    for step in (10, 20, 30, 30):
        assert store.record_checkpoint(claim.job.id, 1, step=step, sha256=digest(f"at {step}"), num_bytes=7)
    crash(store, claim)
    again = claimed(store)
    found = (again.checkpoint_step, again.checkpoint_sha256, again.previous_checkpoint_sha256)
    assert found == (30, digest("at 30"), digest("at 20"))
    assert not store.referenced(digest("at 10"))


def test_an_expired_lease_goes_back_to_the_queue_once(store: Store) -> None:
    claim = running(store)
    assert store.sweep().expired == []
    expire_lease(store, claim.job.id)
    assert store.sweep().expired == [claim.job.id]
    assert store.sweep().expired == []
    job = store.get(claim.job.id)
    assert (job.state, job.attempt, job.claimed_at, job.progress.stage) == (JobState.QUEUED, 1, None, "queued")
    last = store.events(job.id)[-1]
    assert (last.kind, last.fence, last.data["reason"], last.data["charged"]) == ("released", 1, "lease-expired", True)


def test_a_crashed_job_waits_longer_each_time(store: Store, ledger_settings: Settings) -> None:
    claim = running(store)
    limits = {"max_attempts": 99, "max_crashes": 99, "backoff_seconds": 5.0}
    with closing(open_store(ledger_settings.model_copy(update=limits))) as sweeper:
        delays = []
        for _ in range(9):
            expire_lease(store, claim.job.id)
            sweeper.sweep()
            delays.append(store.events(claim.job.id)[-1].data["delay_seconds"])
            assert store.claim("me", 60, 1) is None
            end_pauses(store, claim.job.id)
            claimed(store)
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_job_that_always_dies_at_the_same_step_is_poison(store: Store, ledger_settings: Settings) -> None:
    claim = running(store)
    store.record_checkpoint(claim.job.id, 1, step=7, sha256=digest("seven"), num_bytes=7)
    states = []
    limits = {"max_attempts": 10, "max_crashes": 3}
    with closing(open_store(ledger_settings.model_copy(update=limits))) as sweeper:
        for _ in range(3):
            expire_lease(store, claim.job.id)
            found = sweeper.sweep()
            states.append((found.expired, found.failed))
            if found.expired:
                again = claimed(store)
                store.record_checkpoint(again.job.id, again.fence, step=7, sha256=digest("seven"), num_bytes=7)
    assert states == [([claim.job.id], []), ([claim.job.id], []), ([], [claim.job.id])]
    job = store.get(claim.job.id)
    assert job.error is not None
    assert (job.error.code, job.attempt, job.error.attempt) == ("poison", 3, 3)


def test_a_job_that_gets_further_survives_many_crashes(store: Store) -> None:
    claim = running(store)
    for step in range(1, 9):
        assert store.record_checkpoint(claim.job.id, claim.fence, step=step, sha256=digest(str(step)), num_bytes=7)
        assert crash(store, claim).state is JobState.QUEUED
        claim = claimed(store)
    assert claim.job.attempt == 9


def test_attempts_run_out(store: Store) -> None:
    claim = running(store)
    for step in range(1, 11):
        store.record_checkpoint(claim.job.id, claim.fence, step=step, sha256=digest(str(step)), num_bytes=7)
        job = crash(store, claim)
        if job.state is JobState.QUEUED:
            claim = claimed(store)
    assert job.error is not None
    assert (job.state, job.attempt, job.error.code) == (JobState.FAILED, 10, "worker-lost")


def test_an_uncharged_release_gives_the_attempt_back_but_not_for_ever(store: Store) -> None:
    claim = running(store)
    for _ in range(UNCHARGED_CAP):
        assert claim.job.attempt == 1
        store.release(claim.job.id, claim.fence, reason="drained", charged=False)
        claim = claimed(store)
    rounds = 0
    while store.get(claim.job.id).state is not JobState.FAILED:
        store.release(claim.job.id, claim.fence, reason="drained", charged=False)
        claim = store.claim("me", 60, 1) or claim
        rounds += 1
        assert rounds <= 10
    error = store.get(claim.job.id).error
    assert error is not None
    assert error.code == "worker-lost"


def test_running_time_counts_running_only(store: Store) -> None:
    claim = running(store)
    age_claim(store, claim.job.id, 10_000)
    store.release(claim.job.id, claim.fence, reason="drained", charged=False)
    first = store.get(claim.job.id).running_seconds
    assert 10_000 <= first < 10_000 + PATIENCE
    time.sleep(0.05)
    assert store.get(claim.job.id).running_seconds == first
    claim = claimed(store)
    age_claim(store, claim.job.id, 5_000, silent_seconds=2_000)
    expire_lease(store, claim.job.id)
    store.sweep()
    assert store.get(claim.job.id).running_seconds - first == pytest.approx(3_000, abs=0.01)  # until the last heartbeat


def test_a_due_job_is_rung_for_but_not_by_every_sweep(store: Store) -> None:
    first, second = submit(store), submit(store)
    assert list(store.sweep().notify) == [first.id, second.id]
    assert not store.sweep().notify
    end_pauses(store, second.id)
    assert list(store.sweep().notify) == [second.id]
    claimed(store)
    end_pauses(store, first.id)
    assert not store.sweep().notify


def test_a_sweep_rings_for_the_oldest_jobs_only(store: Store) -> None:
    ids = [submit(store).id for _ in range(25)]
    assert list(store.sweep().notify) == ids[:20]
