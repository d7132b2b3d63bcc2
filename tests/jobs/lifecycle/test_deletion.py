"""A deletion removes everything that no other row needs, and its receipt says so; on every database and store."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from sqlalchemy import delete as delete_rows

from jobs.db import tables
from jobs.errors import InvalidTransition, JobNotFound, StorageUnavailable, TeacherInUse, TeacherNotFound
from jobs.files.artifacts import ArtifactStore, open_artifacts
from jobs.identity import ANONYMOUS, Caller
from jobs.lifecycle.deletion import LATER, ON_ITS_OWN, OTHERS_USE_IT, SAME_BYTES, remove_files
from jobs.lifecycle.idempotency import OutcomeRecorder
from jobs.models import ArtifactRef, Job, JobWithPosition, PurgeReceipt, TeacherRef
from jobs.quota_limits import Quota
from jobs.settings import Settings
from jobs.store import Store
from jobs.tenancy.audit_log import AuditAction
from jobs.tenant_store import TenantStore
from tests.builders import job_spec, teacher_ref


@pytest.fixture
def artifacts(tmp_path: Path, artifact_settings: dict[str, str]) -> ArtifactStore:
    """An empty place for files, of either kind."""
    return open_artifacts(Settings(data_dir=tmp_path / "files", **artifact_settings))


def everything(store: Store, artifacts: ArtifactStore, tmp_path: Path) -> dict[str, set[object]]:
    """Every row of every table but what is kept of acts, every file in the store and every temporary one."""
    told = {name: table for name, table in tables.metadata.tables.items() if name not in {"audit", "usage"}}

    def rows(connection: Connection) -> dict[str, set[object]]:
        return {name: set(connection.execute(select(table)).all()) for name, table in told.items()}

    return {
        **store._database.read(rows),
        "files": set(artifacts.digests()),
        "quarantined": {sha256 for sha256, _ in artifacts.blobs.quarantined()},
        "temporary": set((tmp_path / "files" / "artifacts" / "temporary").iterdir()),
    }


def put(artifacts: ArtifactStore, text: str) -> tuple[str, int]:
    """A file of these bytes."""
    return artifacts.receive([text.encode()], 1000).commit()


def teacher_of(artifacts: ArtifactStore, text: str) -> TeacherRef:
    """A teacher whose file is there."""
    sha256, size = put(artifacts, text)
    return teacher_ref().model_copy(update={"id": sha256, "bytes": size})


def submitted(store: TenantStore, teacher: TeacherRef, *, along: bool = True, key: str | None = None) -> Job:
    """A queued job, with its teacher or for one that is there; its answer is kept under `key`."""
    recorder: OutcomeRecorder[JobWithPosition] | None = None
    if key is not None:
        held = store.keys.new_lease(key)
        store.keys.acquire(held, 60)
        recorder = OutcomeRecorder(held, "f" * 64)
    return store.create(str(uuid.uuid4()), job_spec(a="label"), teacher if along else teacher.id, recorder=recorder)


def finished(store: Store, artifacts: ArtifactStore, job: Job, *, student: str) -> Job:
    """The job, run to its end: two checkpoints and a student."""
    claim = store.claim("a-worker", 60, 1)
    assert claim is not None
    assert claim.job.id == job.id
    for step in (1, 2):
        sha256, _ = put(artifacts, f"checkpoint {step} of {job.id}")
        assert store.record_checkpoint(job.id, claim.fence, step=step, sha256=sha256, num_bytes=7)
    sha256, size = put(artifacts, student)
    ref = ArtifactRef(name="student.onnx", sha256=sha256, bytes=size, media_type="application/octet-stream")
    assert store.succeed(job.id, claim.fence, artifacts=[ref])
    return store.get(job.id)


def delete(store: Store, artifacts: ArtifactStore, job: Job, by: Caller = ANONYMOUS) -> PurgeReceipt:
    return remove_files(store.of(by).delete(job.id), artifacts, store.referenced)


def delete_teacher(store: Store, artifacts: ArtifactStore, teacher: TeacherRef, by: Caller = ANONYMOUS) -> PurgeReceipt:
    return remove_files(store.of(by).delete_teacher(teacher.id), artifacts, store.referenced)


def test_a_deleted_job_leaves_nothing_at_all(store: Store, artifacts: ArtifactStore, tmp_path: Path) -> None:
    before = everything(store, artifacts, tmp_path)
    teacher = teacher_of(artifacts, "a teacher")
    job = finished(store, artifacts, submitted(store, teacher, key="a-key"), student="a student")
    assert everything(store, artifacts, tmp_path) != before
    receipt = delete(store, artifacts, job)
    assert everything(store, artifacts, tmp_path) == before
    assert receipt.kept == []
    assert receipt.rows == {
        "requests": 1, "artifacts": 1, "labels": 1, "events": len(["created", "claimed", *"12", "succeeded"]),
        "jobs": 1, "teachers": 1,
    }  # fmt: skip
    assert sorted(file.role for file in receipt.files) == [
        ["checkpoint"],
        ["checkpoint"],
        ["student.onnx"],
        ["teacher"],
    ]
    assert {file.sha256: file.bytes for file in receipt.files}[teacher.id] == len("a teacher")
    assert receipt.deleted_at >= job.finished_at  # type: ignore[operator]  # it has finished
    with pytest.raises(JobNotFound):
        store.delete(job.id)


def test_a_teacher_goes_with_the_last_job_that_uses_it(store: Store, artifacts: ArtifactStore) -> None:
    teacher = teacher_of(artifacts, "a teacher")
    first = finished(store, artifacts, submitted(store, teacher), student="same")
    second = finished(store, artifacts, submitted(store, teacher, along=False), student="same")
    kept = {tuple(one.role): one.reason for one in delete(store, artifacts, first).kept}
    assert kept == {("teacher",): OTHERS_USE_IT, ("student.onnx",): SAME_BYTES}
    assert artifacts.exists(teacher.id)
    assert delete(store, artifacts, second).kept == []
    assert list(artifacts.digests()) == []
    with pytest.raises(TeacherNotFound):
        store.get_teacher(teacher.id)


@pytest.mark.parametrize("first", ["upload", "job"])
def test_a_teacher_that_was_uploaded_by_itself_outlives_its_jobs(
    store: Store, artifacts: ArtifactStore, first: str
) -> None:
    teacher = teacher_of(artifacts, "a teacher")
    if first == "upload":
        store.put_teacher(teacher)
    job = finished(store, artifacts, submitted(store, teacher), student="a student")
    store.put_teacher(teacher)
    (kept,) = delete(store, artifacts, job).kept
    assert (kept.sha256, kept.reason) == (teacher.id, ON_ITS_OWN)
    receipt = delete_teacher(store, artifacts, teacher)
    assert (receipt.kind, receipt.rows, receipt.kept) == ("teacher", {"teachers": 1}, [])
    assert list(artifacts.digests()) == []


def test_a_teacher_of_a_live_job_stays(store: Store, artifacts: ArtifactStore) -> None:
    teacher = teacher_of(artifacts, "a teacher")
    job = submitted(store, teacher)
    with pytest.raises(TeacherInUse) as refused:
        store.delete_teacher(teacher.id)
    assert refused.value.live_jobs == 1
    with pytest.raises(InvalidTransition):
        store.delete(job.id)
    assert store.get(job.id) == job
    assert store.get_teacher(teacher.id).id == teacher.id


def test_a_deleted_teacher_takes_the_checkpoints_and_leaves_the_students(
    store: Store, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    before = everything(store, artifacts, tmp_path)
    teacher = teacher_of(artifacts, "a teacher").model_copy(update={"inspection": {"input_name": "of a client"}})
    job = finished(store, artifacts, submitted(store, teacher, key="a-key"), student="a student")
    receipt = delete_teacher(store, artifacts, teacher)
    assert sorted(file.role for file in receipt.files) == [["checkpoint"], ["checkpoint"], ["teacher"]]
    assert set(artifacts.digests()) == {job.artifacts[0].sha256}
    assert store.get(job.id).teacher.inspection == {}
    assert everything(store, artifacts, tmp_path)["requests"] == set()  # answers tell what the teacher is
    assert teacher.id not in store.references()
    for ask in (store.get_teacher, store.delete_teacher):
        with pytest.raises(TeacherNotFound):
            ask(teacher.id)
    with pytest.raises(TeacherNotFound):
        submitted(store, teacher, along=False)
    assert delete(store, artifacts, job).kept == []
    assert everything(store, artifacts, tmp_path) == before


def test_a_deleted_teacher_may_come_back(store: Store, artifacts: ArtifactStore) -> None:
    teacher = teacher_of(artifacts, "a teacher").model_copy(update={"inspection": {"opset": 18}})
    old = finished(store, artifacts, submitted(store, teacher), student="a student")
    delete_teacher(store, artifacts, teacher)
    again = teacher_of(artifacts, "a teacher").model_copy(update={"inspection": {"opset": 18}})
    kept, new = store.put_teacher(again)
    assert (kept.inspection, new) == ({"opset": 18}, True)
    assert delete(store, artifacts, old).kept[0].reason == ON_ITS_OWN


def test_what_the_store_cannot_remove_now_is_told_and_left_to_the_janitor(
    store: Store, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(store, artifacts, submitted(store, teacher_of(artifacts, "a teacher")), student="a student")

    def unwilling(_sha256: str) -> Iterator[None]:
        raise StorageUnavailable("it does not answer")

    monkeypatch.setattr(artifacts.blobs, "removing", unwilling)
    receipt = delete(store, artifacts, job)
    assert receipt.files == []
    assert {one.reason for one in receipt.kept} == {LATER}
    assert set(artifacts.digests()) == {one.sha256 for one in receipt.kept}
    assert store.references() == set()


def test_deleted_rows_are_overwritten_in_the_file(sqlite_url: str, tmp_path: Path) -> None:
    from jobs.store import open_store

    store = open_store(Settings(data_dir=tmp_path, database_url=sqlite_url))
    ref = teacher_ref().model_copy(update={"inspection": {"input_name": "a-name-that-nobody-else-has"}})
    job = store.create(str(uuid.uuid4()), job_spec(), ref)
    store.request_cancel(job.id)
    file = tmp_path / "ledger.sqlite3"

    def bytes_of_the_ledger() -> bytes:
        with store._database.connected(writes=False) as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN")
        return file.read_bytes()

    assert b"a-name-that-nobody-else-has" in bytes_of_the_ledger()
    store.delete(job.id)
    after = bytes_of_the_ledger()
    store.close()
    assert b"a-name-that-nobody-else-has" not in after  # the job's id stays in the audit log


ACME, UMBRELLA = Caller("acme"), Caller("umbrella")


def rows_of(store: Store, table: str) -> list[tuple[object, ...]]:
    kept = tables.metadata.tables[table]
    return store._database.read(lambda connection: [tuple(row) for row in connection.execute(select(kept))])


def told_alike(receipt: PurgeReceipt, teacher: TeacherRef) -> dict[str, object]:
    """A receipt, without what differs between two equal deletions."""
    shown = receipt.model_dump(exclude={"deleted_at"})
    return shown | {"id": None, "files": [file for file in shown["files"] if file["sha256"] == teacher.id]}


@pytest.mark.parametrize("along", [False, True])
def test_what_another_tenant_has_stays_and_the_receipt_does_not_tell(
    store: Store, artifacts: ArtifactStore, along: bool
) -> None:
    receipts = []
    for shared in (False, True):
        teacher = teacher_of(artifacts, "a teacher").model_copy(update={"inspection": {"told_shape": [1, 32, 32]}})
        if not along:
            store.of(ACME).put_teacher(teacher)
        if shared:
            store.of(UMBRELLA).put_teacher(teacher.model_copy(update={"inspection": {"of": "umbrella"}}))
        job = finished(store, artifacts, submitted(store.of(ACME), teacher), student="a student")
        receipts.append(told_alike(delete_teacher(store, artifacts, teacher, ACME), teacher))
        assert store.of(ACME).get(job.id).teacher.inspection == {}
        assert delete(store, artifacts, job, ACME).kept == []
        assert artifacts.exists(teacher.id) == store.referenced(teacher.id) == shared
    assert receipts[0] == receipts[1]
    assert store.of(UMBRELLA).get_teacher(teacher.id).inspection == {"of": "umbrella"}
    assert "told_shape" not in repr([rows_of(store, name) for name in ("teachers", "tenant_teachers")])
    assert delete_teacher(store, artifacts, teacher, UMBRELLA).kept == []
    assert list(artifacts.digests()) == []
    assert rows_of(store, "teachers") == []


def test_the_receipt_of_a_job_is_the_same_whoever_else_has_its_teacher(store: Store, artifacts: ArtifactStore) -> None:
    receipts = []
    for shared in (False, True):
        teacher = teacher_of(artifacts, "a teacher")
        if shared:
            other = submitted(store.of(UMBRELLA), teacher)
        job = submitted(store.of(ACME), teacher, key="the-same-text")
        store.request_cancel(job.id)
        receipts.append(told_alike(delete(store, artifacts, job, ACME), teacher))
    assert receipts[0] == receipts[1]
    assert receipts[0]["files"] == [{"sha256": teacher.id, "bytes": teacher.bytes, "role": ["teacher"]}]
    assert artifacts.exists(teacher.id)
    assert store.get(other.id).teacher.id == teacher.id


def test_a_student_that_another_tenant_has_too_is_told_like_any(store: Store, artifacts: ArtifactStore) -> None:
    ours, theirs = (
        finished(store, artifacts, submitted(store.of(who), teacher_of(artifacts, "a teacher")), student="same")
        for who in (ACME, UMBRELLA)
    )
    receipt = delete(store, artifacts, ours, ACME)
    assert receipt.kept == []
    assert {tuple(file.role) for file in receipt.files} == {("teacher",), ("student.onnx",), ("checkpoint",)}
    assert artifacts.exists(theirs.artifacts[0].sha256)
    assert artifacts.exists(theirs.teacher.id)


def test_deleting_leaves_the_checkpoints_and_answers_of_other_tenants(store: Store, artifacts: ArtifactStore) -> None:
    teacher = teacher_of(artifacts, "a teacher")
    theirs = finished(store, artifacts, submitted(store.of(UMBRELLA), teacher, key="k"), student="theirs")
    live = submitted(store.of(UMBRELLA), teacher)
    kept = rows_of(store, "requests")
    ours = store.of(Caller("umbrella_")), store.of(Caller("default"))
    for mine in ours:
        held = mine.keys.new_lease("k")
        mine.keys.acquire(held, 60)
        mine.put_teacher(teacher, recorder=OutcomeRecorder(held, "f" * 64))
    for mine in ours:
        remove_files(mine.delete_teacher(teacher.id), artifacts, store.referenced)
    assert rows_of(store, "requests") == kept
    assert store.of(UMBRELLA).last_checkpoint(theirs.id)
    assert store.of(UMBRELLA).get(live.id) == live
    for ask in (store.of(ACME).delete_teacher, store.of(ACME).get_teacher):
        with pytest.raises(TeacherNotFound):
            ask(teacher.id)


def test_a_deleted_teacher_frees_its_bytes_and_is_in_the_audit_log(store: Store, artifacts: ArtifactStore) -> None:
    teacher = teacher_of(artifacts, "a teacher")
    mine = store.of(ACME)
    first, second = submitted(mine, teacher), submitted(mine, teacher)
    for job in (first, second):
        mine.request_cancel(job.id)
    assert mine.quota_usage()[Quota.STORED_BYTES].used == teacher.bytes
    mine.delete_teacher(teacher.id)
    assert mine.quota_usage()[Quota.STORED_BYTES].used == 0
    mine.delete(first.id)
    mine.delete(second.id)
    acts = [
        (line.act, line.object_id) for line in store.audit_log.read(tenant="acme") if line.act is AuditAction.DELETED
    ]
    assert acts == [("deleted", teacher.id), ("deleted", first.id), ("deleted", second.id)]
    along = submitted(mine, teacher)
    mine.request_cancel(along.id)
    mine.delete(along.id)
    assert mine.quota_usage()[Quota.STORED_BYTES].used == 0
    last = [*store.audit_log.read(object_id=teacher.id)][-1]
    assert (last.act, last.detail) == ("deleted", along.id)


def test_a_job_of_an_older_service_keeps_the_bytes_that_another_tenant_deletes(
    store: Store, artifacts: ArtifactStore
) -> None:
    teacher = teacher_of(artifacts, "a teacher")
    store.request_cancel(submitted(store.of(ACME), teacher).id)
    old = submitted(store, teacher)
    with store._database.connected(writes=True) as connection:  # an older service writes no row of the kind
        connection.execute(delete_rows(tables.tenant_teachers).where(tables.tenant_teachers.c.tenant == "default"))
        connection.commit()
    delete_teacher(store, artifacts, teacher, ACME)
    assert artifacts.exists(teacher.id)
    assert teacher.id in store.references()
    assert store.referenced(teacher.id)
    store.request_cancel(old.id)
    assert store.references() == set()
