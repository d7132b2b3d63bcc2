"""Pause, resume and cancel, and which of them prevails, on SQLite and on PostgreSQL."""

import pytest
from sqlalchemy import select

from jobs.db import tables
from jobs.errors import InvalidTransition
from jobs.ledger.leases import Claim
from jobs.models import Job, JobError, JobState
from jobs.store import Store
from tests.builders import digest, submit
from tests.jobs.clockwork import end_pauses, expire_lease


def running(store: Store) -> Claim:
    submit(store)
    claim = store.claim("me", 60, 2)
    assert claim is not None
    return claim


def pausing(store: Store) -> Claim:
    claim = running(store)
    store.request_pause(claim.job.id)
    return claim


def kinds(store: Store, job: Job) -> list[str]:
    return [event.kind for event in store.events(job.id)]


def lease_of(store: Store, job_id: str) -> tuple[object, ...]:
    columns = (tables.jobs.c.lease_until, tables.jobs.c.owner, tables.jobs.c.pause_requested_at)
    statement = select(*columns).where(tables.jobs.c.id == job_id)
    return tuple(store._database.read(lambda connection: connection.execute(statement).one()))


def test_a_queued_job_is_paused_at_once_and_nobody_claims_it(store: Store) -> None:
    job = store.request_pause(submit(store).id)
    assert (job.state, job.public_state, job.progress.stage) == (JobState.PAUSED, "paused", "paused")
    assert store.claim("me", 60, 1) is None
    end_pauses(store, job.id)
    assert not store.sweep().notify
    assert store.get_with_position(job.id).queue_position is None
    assert kinds(store, job) == ["created", "paused"]


def test_a_resumed_job_has_its_old_place(store: Store) -> None:
    first, second = submit(store), submit(store)
    store.request_pause(first.id)
    resumed = store.request_resume(first.id)
    assert (resumed.state, resumed.progress.stage) == (JobState.QUEUED, "queued")
    assert store.get_with_position(first.id).queue_position == 1
    assert store.get_with_position(second.id).queue_position == 2
    assert list(store.sweep().notify) == [first.id, second.id]


def test_a_running_job_is_told_by_its_heartbeat_and_the_attempt_is_not_counted(store: Store) -> None:
    claim = running(store)
    lease = store.heartbeat(claim.job.id, claim.fence, 60)
    assert lease is not None
    assert not lease.pause_requested
    assert store.request_pause(claim.job.id).public_state == "pausing"
    lease = store.heartbeat(claim.job.id, claim.fence, 60)
    assert lease is not None
    assert lease.pause_requested
    assert store.record_checkpoint(claim.job.id, claim.fence, step=7, sha256=digest("seven"), num_bytes=7)
    assert store.paused(claim.job.id, claim.fence)
    job = store.get(claim.job.id)
    assert (job.state, job.attempt, job.pause_requested) == (JobState.PAUSED, 0, False)
    assert lease_of(store, job.id) == (None, None, None)
    store.request_resume(job.id)
    again = store.claim("another", 60, 1)
    assert again is not None
    assert (again.fence, again.checkpoint_step, again.job.attempt) == (2, 7, 1)


def test_a_paused_job_is_no_longer_the_workers(store: Store) -> None:
    claim = pausing(store)
    assert store.paused(claim.job.id, claim.fence)
    assert store.heartbeat(claim.job.id, claim.fence, 60) is None
    assert not store.succeed(claim.job.id, claim.fence, artifacts=[])
    assert not store.paused(claim.job.id, claim.fence)


def test_a_resume_wins_over_a_pause_that_has_not_happened(store: Store) -> None:
    claim = pausing(store)
    assert store.request_resume(claim.job.id).public_state == "running"
    assert not store.paused(claim.job.id, claim.fence)
    assert store.get(claim.job.id).state is JobState.RUNNING
    assert kinds(store, claim.job)[-2:] == ["pause-requested", "resumed"]


def test_a_job_that_is_done_first_has_succeeded(store: Store) -> None:
    claim = pausing(store)
    assert store.succeed(claim.job.id, claim.fence, artifacts=[])
    job = store.get(claim.job.id)
    assert (job.state, job.pause_requested) == (JobState.SUCCEEDED, False)


def test_a_cancel_overrules_a_pause(store: Store) -> None:
    claim = pausing(store)
    assert store.request_cancel(claim.job.id).public_state == "cancelling"
    assert store.paused(claim.job.id, claim.fence)
    assert store.get(claim.job.id).state is JobState.CANCELLED
    waiting = store.request_pause(submit(store).id)
    assert store.request_cancel(waiting.id).state is JobState.CANCELLED


@pytest.mark.parametrize("how", ["lost", "released"])
def test_a_pausing_job_whose_worker_is_gone_is_paused(store: Store, how: str) -> None:
    claim = pausing(store)
    if how == "lost":
        expire_lease(store, claim.job.id)
        assert store.sweep().paused == [claim.job.id]
    else:
        assert store.release(claim.job.id, claim.fence, reason="drained", charged=False)
    job = store.get(claim.job.id)
    assert (job.state, job.attempt) == (JobState.PAUSED, 1 if how == "lost" else 0)
    assert kinds(store, job)[-2:] == ["released", "paused"]


def test_asking_again_changes_nothing(store: Store) -> None:
    job = submit(store)
    assert store.request_resume(job.id) == job
    paused = store.request_pause(job.id)
    assert store.request_pause(job.id) == paused
    claim = pausing(store)
    assert store.request_pause(claim.job.id) == store.get(claim.job.id)


def test_what_has_ended_or_is_being_cancelled_is_neither_paused_nor_resumed(store: Store) -> None:
    succeeded, failed, cancelling = running(store), running(store), running(store)
    store.succeed(succeeded.job.id, 1, artifacts=[])
    store.fail(failed.job.id, 1, error=JobError(code="internal", detail="d"))
    store.request_cancel(cancelling.job.id)
    cancelled = store.request_cancel(submit(store).id)
    for job_id in (succeeded.job.id, failed.job.id, cancelling.job.id, cancelled.id):
        before = store.get(job_id)
        for ask in (store.request_pause, store.request_resume):
            with pytest.raises(InvalidTransition) as caught:
                ask(job_id)
            assert caught.value.state == before.public_state
        assert store.get(job_id) == before
