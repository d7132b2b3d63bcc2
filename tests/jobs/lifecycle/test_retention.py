"""How long an unused teacher is kept, and what its deletion leaves; on every database."""

import math
import uuid
from collections import Counter
from contextlib import suppress

import pytest
from sqlalchemy import select

from jobs.db import tables
from jobs.db.db_time import DAY_SECONDS
from jobs.errors import CheckpointExpired, TeacherNotFound
from jobs.files.artifacts import ArtifactStore, open_artifacts
from jobs.garbage_collector import collect_garbage
from jobs.identity import Caller
from jobs.ledger.lineage import Origin
from jobs.lifecycle.retention import UnusedTeacher
from jobs.models import ArtifactRef, Job, TeacherRef
from jobs.settings import Settings
from jobs.store import Store
from jobs.tenancy.audit_log import AuditAction
from jobs.tenant_store import TenantStore
from tests.builders import job_spec, teacher_ref
from tests.jobs.clockwork import age_end, age_teacher
from tests.jobs.ledger.test_concurrency import together
from tests.jobs.test_tenant_store import explained

ACME, UMBRELLA = Caller("acme"), Caller("umbrella")
MONTH_SECONDS = 30 * DAY_SECONDS
LONGER, SHORTER = MONTH_SECONDS + 60, MONTH_SECONDS - 60
TOLD = {"inspection": {"input_name": "of a client"}}


@pytest.fixture
def artifacts(ledger_settings: Settings) -> ArtifactStore:
    return open_artifacts(ledger_settings)


@pytest.fixture
def teacher(artifacts: ArtifactStore) -> TeacherRef:
    """A teacher whose file is there."""
    sha256, size = artifacts.receive([b"a teacher"], 1000).commit()
    return teacher_ref().model_copy(update={"id": sha256, "bytes": size, **TOLD})


def tidy(
    store: Store, artifacts: ArtifactStore, *, seconds: float = MONTH_SECONDS, dry_run: bool = False
) -> list[tuple[str, str]]:
    """What one round of the janitor expires, and why."""
    acts = collect_garbage(store, artifacts, retention_seconds=seconds, quarantine_seconds=0.0, dry_run=dry_run)
    return [(act.what, act.why) for act in acts if act.verb == "expire"]


def used(store: Store, teacher: TeacherRef | str, by: Caller = ACME) -> Job:
    """A queued job."""
    return store.of(by).create(str(uuid.uuid4()), job_spec(), teacher)


def finished(store: Store, artifacts: ArtifactStore, job: Job, *, seconds: float) -> Job:
    """The job, which has ended so long ago with a checkpoint and a student."""
    claim = store.claim("a-worker", 60, 1)
    assert claim is not None
    assert claim.job.id == job.id
    checkpoint, _ = artifacts.receive([f"checkpoint of {job.id}".encode()], 1000).commit()
    assert store.record_checkpoint(job.id, claim.fence, step=1, sha256=checkpoint, num_bytes=7)
    student, size = artifacts.receive([f"student of {job.id}".encode()], 1000).commit()
    ref = ArtifactRef(name="student.onnx", sha256=student, bytes=size, media_type="application/octet-stream")
    assert store.succeed(job.id, claim.fence, artifacts=[ref])
    age_end(store, job.id, seconds)
    return store.get(job.id)


def has(belongings: TenantStore, teacher: TeacherRef) -> bool:
    try:
        return belongings.get_teacher(teacher.id).id == teacher.id
    except TeacherNotFound:
        return False


def test_a_teacher_that_nobody_uses_expires_with_its_row_and_its_file(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    store.of(ACME).put_teacher(teacher)
    age_teacher(store, teacher.id, SHORTER, tenant="acme")
    assert tidy(store, artifacts) == []
    age_teacher(store, teacher.id, LONGER, tenant="acme")
    assert tidy(store, artifacts) == [(teacher.id, "tenant acme has not used this teacher for 30 days")]
    assert not has(store.of(ACME), teacher)
    with pytest.raises(TeacherNotFound):
        used(store, teacher.id)
    assert store.references() == set()
    assert tidy(store, artifacts) == []
    assert list(artifacts.digests()) == []


def test_its_file_waits_in_quarantine_like_any_and_the_teacher_may_come_back(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    store.put_teacher(teacher)
    age_teacher(store, teacher.id, LONGER)
    acts = collect_garbage(store, artifacts, retention_seconds=MONTH_SECONDS)
    assert [(act.verb, act.what) for act in acts] == [("expire", teacher.id), ("quarantine", teacher.id)]
    assert store.put_teacher(teacher)[1]
    acts = collect_garbage(store, artifacts, retention_seconds=MONTH_SECONDS)
    assert [(act.verb, act.what) for act in acts] == [("discharge", teacher.id)]
    assert artifacts.exists(teacher.id)


@pytest.mark.parametrize("along", [False, True])
def test_a_live_job_keeps_its_teacher_and_so_does_one_that_finished_lately(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef, along: bool
) -> None:
    if not along:
        store.of(ACME).put_teacher(teacher)
    old = used(store, teacher)
    age_teacher(store, teacher.id, 12 * MONTH_SECONDS, tenant="acme")
    assert tidy(store, artifacts) == []
    store.of(ACME).request_pause(old.id)
    assert tidy(store, artifacts) == []
    store.of(ACME).request_resume(old.id)
    finished(store, artifacts, old, seconds=LONGER)
    new = finished(store, artifacts, used(store, teacher.id), seconds=SHORTER)
    assert [what for what, _ in tidy(store, artifacts)] == [old.id]
    assert store.of(ACME).last_checkpoint(new.id)
    age_end(store, new.id, LONGER)
    assert [what for what, _ in tidy(store, artifacts)] == [new.id, teacher.id]


def test_what_is_sent_again_is_kept_again(store: Store, artifacts: ArtifactStore, teacher: TeacherRef) -> None:
    store.of(ACME).put_teacher(teacher)
    age_teacher(store, teacher.id, LONGER, tenant="acme")
    kept, new = store.of(ACME).put_teacher(teacher)
    assert (new, kept.inspection) == (False, teacher.inspection)
    assert tidy(store, artifacts) == []
    assert store.of(ACME).get_teacher(teacher.id) == kept


def test_a_job_that_was_deleted_counts_until_it_would_have(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    store.of(ACME).put_teacher(teacher)
    job = finished(store, artifacts, used(store, teacher.id), seconds=SHORTER)
    earlier = finished(store, artifacts, used(store, teacher.id), seconds=LONGER)
    age_teacher(store, teacher.id, 12 * MONTH_SECONDS, tenant="acme")
    for one in (job, earlier):
        store.of(ACME).delete(one.id)
    assert tidy(store, artifacts) == []
    with store._database.connected(writes=False) as connection:
        used_at = connection.execute(select(tables.tenant_teachers.c.used_at)).scalar_one()
    assert used_at == job.finished_at
    age_teacher(store, teacher.id, LONGER, tenant="acme")
    assert [what for what, _ in tidy(store, artifacts)] == [teacher.id]


def test_each_tenant_has_it_for_as_long_as_it_uses_it_itself(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    for caller in (ACME, UMBRELLA):
        store.of(caller).put_teacher(teacher)
    age_teacher(store, teacher.id, LONGER, tenant="acme")
    age_teacher(store, teacher.id, LONGER, tenant="umbrella")
    theirs = used(store, teacher.id, UMBRELLA)
    assert tidy(store, artifacts) == [(teacher.id, "tenant acme has not used this teacher for 30 days")]
    assert (has(store.of(ACME), teacher), has(store.of(UMBRELLA), teacher)) == (False, True)
    assert tidy(store, artifacts) == []
    assert artifacts.exists(teacher.id)
    assert store.of(UMBRELLA).get(theirs.id).teacher.inspection == teacher.inspection
    finished(store, artifacts, theirs, seconds=LONGER)
    assert [what for what, _ in tidy(store, artifacts)] == [theirs.id, teacher.id]
    tidy(store, artifacts)
    assert list(artifacts.digests()) == []


def test_a_finished_job_is_what_it_is_when_its_teacher_is_deleted(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    left = []
    for caller, expires in ((ACME, True), (UMBRELLA, False)):
        mine = store.of(caller)
        mine.put_teacher(teacher)
        job = finished(store, artifacts, used(store, teacher.id, caller), seconds=LONGER)
        if expires:
            age_teacher(store, teacher.id, LONGER, tenant="acme")
            assert [unused.tenant for unused in store.unused_teachers(MONTH_SECONDS)] == ["acme"]
            assert store.expire_teacher(store.unused_teachers(MONTH_SECONDS)[0], MONTH_SECONDS)
        else:
            mine.delete_teacher(teacher.id)
        for continues in (False, True):
            with pytest.raises(TeacherNotFound):
                mine.create(str(uuid.uuid4()), job_spec(), teacher.id, origin=Origin(job.id, continues=continues))
        with pytest.raises(CheckpointExpired):
            mine.last_checkpoint(job.id)
        after = mine.get(job.id)
        assert (after.artifacts, after.teacher.inspection, after.revision) == (job.artifacts, {}, job.revision)
        left.append({name for name, value in after.model_dump().items() if value == job.model_dump()[name]})
    assert left[0] == left[1] == set(Job.model_fields) - {"teacher"}
    assert [line.tenant for line in store.audit_log.read(object_id=teacher.id) if line.act is AuditAction.DELETED] == [
        "umbrella"
    ]


def test_a_dry_run_names_it_and_changes_nothing(store: Store, artifacts: ArtifactStore, teacher: TeacherRef) -> None:
    store.put_teacher(teacher)
    age_teacher(store, teacher.id, LONGER)
    plan = tidy(store, artifacts, dry_run=True)
    assert plan == [(teacher.id, "tenant default has not used this teacher for 30 days")]
    assert tidy(store, artifacts, dry_run=True) == plan
    assert has(store, teacher)
    assert artifacts.exists(teacher.id)
    assert list(artifacts.blobs.quarantined()) == []
    assert tidy(store, artifacts) == plan


def test_an_infinite_retention_period_is_never_over(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    store.of(ACME).put_teacher(teacher)
    job = finished(store, artifacts, used(store, teacher.id), seconds=1000 * MONTH_SECONDS)
    age_teacher(store, teacher.id, 1000 * MONTH_SECONDS, tenant="acme")
    days = Settings.model_validate({"retention_days": "inf"}).retention_days
    assert days == math.inf
    assert tidy(store, artifacts, seconds=days * DAY_SECONDS) == []
    assert store.get(job.id).artifacts == job.artifacts
    assert store.of(ACME).last_checkpoint(job.id)
    assert len(tidy(store, artifacts)) == 2


def test_what_is_used_after_it_was_found_unused_stays(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    store.of(ACME).put_teacher(teacher)
    age_teacher(store, teacher.id, LONGER, tenant="acme")
    (unused,) = store.unused_teachers(MONTH_SECONDS)
    job = used(store, teacher.id)
    assert not store.expire_teacher(unused, MONTH_SECONDS)
    store.of(ACME).request_cancel(job.id)
    assert not store.expire_teacher(unused, MONTH_SECONDS)
    age_end(store, job.id, LONGER)
    store.of(ACME).put_teacher(teacher)
    assert not store.expire_teacher(unused, MONTH_SECONDS)
    age_teacher(store, teacher.id, LONGER, tenant="acme")
    assert store.expire_teacher(unused, MONTH_SECONDS)
    assert not store.expire_teacher(unused, MONTH_SECONDS)


def test_a_submission_at_the_same_moment_has_its_teacher_or_is_refused(
    store: Store, artifacts: ArtifactStore, teacher: TeacherRef
) -> None:
    outcomes = Counter[tuple[bool, bool]]()
    for _ in range(12):
        store.of(ACME).put_teacher(teacher)
        age_teacher(store, teacher.id, LONGER, tenant="acme")
        (unused,) = store.unused_teachers(MONTH_SECONDS)
        jobs: list[Job] = []
        gone: list[bool] = []

        def submit(jobs: list[Job] = jobs) -> None:
            with suppress(TeacherNotFound):
                jobs.append(used(store, teacher.id))

        def expire(gone: list[bool] = gone, unused: UnusedTeacher = unused) -> None:
            gone.append(store.expire_teacher(unused, MONTH_SECONDS))

        together(submit, expire)
        assert gone == [not jobs]
        assert has(store.of(ACME), teacher) == bool(jobs)
        assert (teacher.id in store.references()) == bool(jobs)
        outcomes[bool(jobs), gone[0]] += 1
        for job in jobs:
            store.of(ACME).request_cancel(job.id)
            age_end(store, job.id, LONGER)
    assert set(outcomes) <= {(True, False), (False, True)}


def test_jobs_are_looked_up_by_the_teachers_that_may_be_unused(store: Store) -> None:
    assert "ix_jobs_teacher_id" in explained(store, lambda: store.unused_teachers(MONTH_SECONDS))
