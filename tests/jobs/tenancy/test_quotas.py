"""Quotas on SQLite and on PostgreSQL: use is counted, more is refused, and concurrent requests exceed no limit."""

import uuid
from collections.abc import Callable

import pytest

from jobs.errors import JobNotFound, QuotaExceeded
from jobs.identity import Caller
from jobs.ledger.lineage import Origin
from jobs.models import JobError, JobState
from jobs.quota_limits import Quota, Quotas
from jobs.settings import Settings
from jobs.store import Store, open_store
from jobs.tenancy.quotas import Use
from tests.builders import artifact_ref, digest, job_spec, submit_for, teacher_ref
from tests.jobs.clockwork import age_claim, end_day, expire_lease, use_up
from tests.jobs.racers import race

A = Caller("a")
DAY = 86400
BOOM = JobError(code="internal", detail="boom")


def used(store: Store, quota: Quota, tenant: str = "a") -> int:
    return store.of(Caller(tenant)).quota_usage()[quota].used


def refused(act: Callable[[], object]) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as found:
        act()
    return found.value


def fence(store: Store, job_id: str) -> int:
    return store.get(job_id).fence


def test_without_limits_nothing_is_refused_and_everything_is_counted(store: Store) -> None:
    running, _ = (submit_for(store, tenant="a") for _ in range(2))
    assert store.claim("me", 60, 1) is not None
    assert used(store, Quota.QUEUED_JOBS) == used(store, Quota.RUNNING_JOBS) == 1
    assert store.succeed(running.id, 1, artifacts=[artifact_ref(), artifact_ref("report.json", "a report")])
    standing = store.of(A).quota_usage()
    assert standing[Quota.STORED_BYTES] == Use(limit=0, used=len("teacher") + len("student") + len("a report"))
    assert [use.used for use in store.of(Caller("nobody")).quota_usage().values()] == [0, 0, 0, 0]


def test_the_checkpoint_of_a_finished_job_counts_until_it_expires(store: Store) -> None:
    first, second = (submit_for(store, tenant="a") for _ in range(2))
    sent = len("teacher")
    for job in (first, second):
        assert store.claim("me", 60, 1) is not None
        before = used(store, Quota.STORED_BYTES)
        assert store.record_checkpoint(job.id, 1, step=1, sha256=digest("before"), num_bytes=500)
        assert store.record_checkpoint(job.id, 1, step=2, sha256=digest("equal"), num_bytes=1000)
        assert used(store, Quota.STORED_BYTES) == before
        assert store.fail(job.id, 1, error=BOOM)
        assert used(store, Quota.STORED_BYTES) == sent + 1000  # equal checkpoints count once
    assert used(store, Quota.STORED_BYTES, "b") == 0
    for job in (first, second):
        store.expire(job.id, 1e9, -1.0)
    assert used(store, Quota.STORED_BYTES) == sent


def test_queued_jobs_are_limited_tenant_by_tenant_and_paused_ones_count(store: Store) -> None:
    store.tenants.limit("a", {Quota.QUEUED_JOBS: 2})
    first = submit_for(store, tenant="a")
    store.request_pause(first.id)
    submit_for(store, tenant="a")
    found = refused(lambda: submit_for(store, tenant="a"))
    assert (found.quota, found.limit, found.used, found.retry_after_seconds) == (Quota.QUEUED_JOBS, 2, 2, None)
    assert store.request_resume(first.id).state is JobState.QUEUED
    submit_for(store, tenant="b")
    assert store.claim("me", 60, 1) is not None
    assert submit_for(store, tenant="a").state is JobState.QUEUED


def test_a_job_that_comes_back_to_a_full_queue_is_not_refused(store: Store) -> None:
    store.tenants.limit("a", {Quota.QUEUED_JOBS: 1})
    job = submit_for(store, tenant="a")
    assert store.claim("me", 60, 1) is not None
    submit_for(store, tenant="a")
    assert store.release(job.id, 1, reason="drained", charged=False)
    assert used(store, Quota.QUEUED_JOBS) == 2


def test_a_refused_job_leaves_neither_its_teacher_nor_a_line(store: Store) -> None:
    store.tenants.limit("a", {Quota.QUEUED_JOBS: 1})
    submit_for(store, tenant="a")
    lines = len(list(store.audit_log.read()))
    job_id, teacher = str(uuid.uuid4()), teacher_ref("another teacher")
    refused(lambda: store.of(A).create(job_id, job_spec(), teacher))
    assert not store.referenced(teacher.id)
    assert len(list(store.audit_log.read())) == lines
    with pytest.raises(JobNotFound):
        store.get(job_id)


def test_a_retry_and_a_continuation_are_submissions_too(store: Store) -> None:
    store.tenants.limit("a", {Quota.QUEUED_JOBS: 1})
    done = submit_for(store, tenant="a")
    store.request_cancel(done.id)
    submit_for(store, tenant="a")
    for continues in (True, False):
        origin = Origin(done.id, continues=continues)
        refused(lambda o=origin: store.of(A).create(str(uuid.uuid4()), job_spec(), done.teacher.id, origin=o))


def test_running_jobs_are_limited_where_they_are_claimed(store: Store) -> None:
    store.tenants.limit("a", {Quota.RUNNING_JOBS: 1})
    of_a = [submit_for(store, tenant="a", priority=9).id for _ in range(3)]
    of_b = submit_for(store, tenant="b").id
    claimed = [store.claim("me", 60, 1) for _ in range(3)]
    assert [claim and claim.job.id for claim in claimed] == [of_a[0], of_b, None]
    assert set(store.sweep().notify) == set()  # nobody is called for jobs that nobody may claim
    assert store.succeed(of_a[0], 1, artifacts=[])
    following = store.claim("me", 60, 1)
    assert following is not None
    assert following.job.id == of_a[1]


def test_bells_ring_for_others_while_a_tenant_has_all_it_may_run(store: Store) -> None:
    store.tenants.limit("a", {Quota.RUNNING_JOBS: 1})
    for _ in range(30):
        submit_for(store, tenant="a")
    assert store.claim("me", 60, 1) is not None
    job = submit_for(store, tenant="b")
    assert list(store.sweep().notify) == [job.id]


def test_stored_bytes_are_teachers_and_students_equal_ones_once(store: Store) -> None:
    store.tenants.limit("a", {Quota.STORED_BYTES: 20})
    twelve, eight, one = (teacher_ref(word * length) for word, length in (("x", 12), ("y", 8), ("z", 1)))
    for _ in range(2):
        store.of(A).put_teacher(twelve)
    store.of(A).put_teacher(eight)
    found = refused(lambda: store.of(A).put_teacher(one))
    assert (found.quota, found.limit, found.used) == (Quota.STORED_BYTES, 20, 20)
    assert not store.referenced(one.id)
    store.of(A).put_teacher(twelve)  # it is there already
    store.of(Caller("b")).put_teacher(one)
    assert used(store, Quota.STORED_BYTES, "b") == 1


def test_a_student_is_published_whatever_is_stored_and_new_jobs_wait_for_room(store: Store) -> None:
    store.tenants.limit("a", {Quota.STORED_BYTES: 10})
    teacher, _ = store.of(A).put_teacher(teacher_ref("ten  bytes"))
    job = store.of(A).create(str(uuid.uuid4()), job_spec(), teacher.id)
    assert store.claim("me", 60, 1) is not None
    assert store.succeed(job.id, 1, artifacts=[artifact_ref()])
    found = refused(lambda: store.of(A).create(str(uuid.uuid4()), job_spec(), teacher.id))
    assert (found.quota, found.used) == (Quota.STORED_BYTES, 17)
    store.delete(job.id)
    store.of(A).create(str(uuid.uuid4()), job_spec(), teacher.id)


def spend(store: Store, seconds: float, end: Callable[[str, int], object] | None = None) -> str:
    """A job of tenant `a` that has run for so long → its id."""
    job = submit_for(store, tenant="a")
    claim = store.claim("me", 60, 1)
    assert claim is not None
    assert claim.job.id == job.id
    age_claim(store, job.id, seconds)
    if end is not None:
        end(job.id, claim.fence)
    return job.id


ENDS: dict[str, Callable[[Store, str, int], object]] = {
    "succeeded": lambda store, job_id, fence: store.succeed(job_id, fence, artifacts=[]),
    "failed": lambda store, job_id, fence: store.fail(job_id, fence, error=BOOM),
    "released": lambda store, job_id, fence: store.release(job_id, fence, reason="x", charged=True),
    "cancelled": lambda store, job_id, fence: (store.request_cancel(job_id), store.cancelled(job_id, fence)),
    "paused": lambda store, job_id, fence: (store.request_pause(job_id), store.paused(job_id, fence)),
    "lost": lambda store, job_id, _fence: (expire_lease(store, job_id), store.sweep()),
}


@pytest.mark.parametrize("how", ENDS)
def test_device_seconds_are_charged_however_an_attempt_ends(store: Store, how: str) -> None:
    job_id = spend(store, 3.5, lambda job_id, fence: ENDS[how](store, job_id, fence))
    assert store.get(job_id).state is not JobState.RUNNING
    assert used(store, Quota.DEVICE_SECONDS) >= 3
    assert used(store, Quota.DEVICE_SECONDS, "b") == 0


def test_a_job_that_runs_is_counted_and_a_deleted_one_gives_nothing_back(store: Store) -> None:
    job_id = spend(store, 3.5)
    assert used(store, Quota.DEVICE_SECONDS) >= 3
    assert store.succeed(job_id, 1, artifacts=[])
    store.delete(job_id)
    assert used(store, Quota.DEVICE_SECONDS) >= 3


def test_who_has_used_up_a_day_waits_for_the_next(store: Store) -> None:
    store.tenants.limit("a", {Quota.DEVICE_SECONDS: DAY})
    job = submit_for(store, tenant="a")
    assert store.claim("me", 60, 1) is not None
    leases = [store.heartbeat(job.id, 1, 60)]
    use_up(store, "a", DAY)
    leases.append(store.heartbeat(job.id, 1, 60))
    assert [lease and lease.over_quota for lease in leases] == [False, True]  # its worker gives it back
    assert store.release(job.id, 1, reason="over-quota", charged=False)
    assert store.claim("me", 60, 1) is None
    found = refused(lambda: submit_for(store, tenant="a"))
    assert (found.quota, found.limit, found.used >= DAY) == (Quota.DEVICE_SECONDS, DAY, True)
    assert found.retry_after_seconds is not None
    assert 0 < found.retry_after_seconds <= DAY
    end_day(store)
    again = store.claim("me", 60, 1)
    assert again is not None
    assert again.job.id == job.id
    assert submit_for(store, tenant="a").state is JobState.QUEUED


def test_a_tenant_without_limits_of_its_own_has_those_of_the_settings(ledger_settings: Settings) -> None:
    settings = ledger_settings.model_copy(update={"quota_queued_jobs": 1, "quota_running_jobs": 7})
    assert settings.quotas == Quotas(queued_jobs=1, running_jobs=7)
    store = open_store(settings)
    try:
        submit_for(store, tenant="a")
        refused(lambda: submit_for(store, tenant="a"))
        store.tenants.limit("a", {Quota.QUEUED_JOBS: 0})
        submit_for(store, tenant="a")
        store.tenants.limit("a", {Quota.QUEUED_JOBS: None, Quota.RUNNING_JOBS: 2})
        refused(lambda: submit_for(store, tenant="a"))
        limits = {quota: use.limit for quota, use in store.of(A).quota_usage().items()}
        assert limits == {"queued_jobs": 1, "running_jobs": 2, "stored_bytes": 0, "device_seconds_per_day": 0}
        assert store.tenants.names() == ["a"]
    finally:
        store.close()


@pytest.mark.parametrize("quota", [Quota.QUEUED_JOBS, Quota.STORED_BYTES])
def test_many_processes_that_submit_at_once_never_get_past_a_limit(
    store: Store, ledger_settings: Settings, quota: Quota
) -> None:
    size = 1 if quota is Quota.QUEUED_JOBS else teacher_ref(str(uuid.uuid4())).bytes
    store.tenants.limit("a", {quota: 5 * size})
    assert sum(race("submits_some", ledger_settings.resolved_database_url, number=3)) == 5
    assert used(store, quota) == 5 * size
    assert used(store, Quota.STORED_BYTES) == 5 * 36  # of those that were refused nothing is there


def test_many_processes_that_claim_at_once_never_get_past_a_limit(store: Store, ledger_settings: Settings) -> None:
    store.tenants.limit("a", {Quota.RUNNING_JOBS: 4})
    for _ in range(20):
        submit_for(store, tenant="a")
    for _ in range(3):
        submit_for(store, tenant="b")
    assert sum(race("claims_some", ledger_settings.resolved_database_url, number=3)) == 4 + 3
    assert (used(store, Quota.RUNNING_JOBS), used(store, Quota.RUNNING_JOBS, "b")) == (4, 3)
