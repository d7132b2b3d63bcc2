"""Jobs that come from other jobs, on SQLite and on PostgreSQL."""

import uuid

import pytest

from dfkd_core.spec.config import Budget
from jobs.errors import CheckpointExpired, InvalidTransition, JobNotFound
from jobs.ledger.lineage import Origin
from jobs.models import Job, JobError, JobSpec
from jobs.store import Store
from tests.builders import digest, submit


def finished(store: Store, *, checkpoint: str | None = "last") -> Job:
    job = submit(store, team="a")
    store.claim("me", 60, 3)
    if checkpoint is not None:
        store.record_checkpoint(job.id, 1, step=5, sha256=digest("before the last"), num_bytes=7)
        store.record_checkpoint(job.id, 1, step=9, sha256=digest(checkpoint), num_bytes=7)
    store.succeed(job.id, 1, artifacts=[])
    return store.get(job.id)


def again(store: Store, job: Job, *, continues: bool) -> Job:
    assert isinstance(job.spec, JobSpec)
    return store.create(str(uuid.uuid4()), job.spec, job.teacher.id, origin=Origin(job.id, continues=continues))


def test_a_retried_job_begins_at_the_beginning(store: Store) -> None:
    old = finished(store)
    new = again(store, old, continues=False)
    assert (new.retried_from, new.continued_from, new.spec, new.teacher) == (old.id, None, old.spec, old.teacher)
    claim = store.claim("me", 60, 1)
    assert claim is not None
    assert (claim.checkpoint_sha256, claim.job.continued_budget, claim.job.threads) == (None, None, 1)
    assert store.get(old.id) == old


def test_a_continuing_job_begins_with_the_checkpoints_and_threads_of_the_old_one(store: Store) -> None:
    old = finished(store)
    assert store.last_checkpoint(old.id) == digest("last")
    new = again(store, old, continues=True)
    assert (new.retried_from, new.continued_from) == (None, old.id)
    claim = store.claim("me", 60, 1)
    assert claim is not None
    kept = (claim.checkpoint_sha256, claim.previous_checkpoint_sha256, claim.checkpoint_step)
    assert kept == (digest("last"), digest("before the last"), 9)
    assert (claim.job.continued_budget, claim.job.threads) == (Budget(), 3)


def test_the_checkpoint_outlives_the_old_job_while_the_new_one_needs_it(store: Store) -> None:
    old = finished(store)
    new = again(store, old, continues=True)
    assert digest("last") not in store.delete(old.id).files
    assert store.referenced(digest("last"))
    store.request_cancel(new.id)
    assert digest("last") in store.delete(new.id).files


def test_a_failed_and_a_cancelled_job_have_their_last_checkpoint_too(store: Store) -> None:
    for end in ("failed", "cancelled"):
        job = submit(store)
        store.claim("me", 60, 1)
        store.record_checkpoint(job.id, 1, step=9, sha256=digest(end), num_bytes=7)
        if end == "failed":
            store.fail(job.id, 1, error=JobError(code="internal", detail="d"))
        else:
            store.request_cancel(job.id)
            store.cancelled(job.id, 1)
        assert again(store, store.get(job.id), continues=True).continued_from == job.id
        claim = store.claim("me", 60, 1)
        assert claim is not None
        assert claim.checkpoint_sha256 == digest(end)


@pytest.mark.parametrize("continues", [False, True])
def test_only_what_has_ended_runs_again(store: Store, continues: bool) -> None:
    queued = submit(store)
    with pytest.raises(InvalidTransition):
        again(store, queued, continues=continues)
    with pytest.raises(JobNotFound):
        again(store, queued.model_copy(update={"id": str(uuid.uuid4())}), continues=continues)
    with pytest.raises(InvalidTransition):
        store.last_checkpoint(queued.id)
    assert [job.id for job in store.list(10).jobs] == [queued.id]


def test_without_a_checkpoint_nothing_is_continued(store: Store) -> None:
    old = finished(store, checkpoint=None)
    with pytest.raises(CheckpointExpired):
        again(store, old, continues=True)
    with pytest.raises(CheckpointExpired):
        store.last_checkpoint(old.id)
    assert again(store, old, continues=False).retried_from == old.id


def test_an_expired_checkpoint_is_not_gone_on_from(store: Store) -> None:
    old = finished(store)
    store.expire(old.id, -1.0, -1.0)
    with pytest.raises(CheckpointExpired):
        store.last_checkpoint(old.id)
    with pytest.raises(CheckpointExpired):
        again(store, old, continues=True)
