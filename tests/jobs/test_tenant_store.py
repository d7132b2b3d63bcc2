"""Two tenants in one ledger: neither can see, change or infer anything of the other's data."""

import inspect
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from jobs.errors import JobNotFound, RequestInProgress, TeacherNotFound
from jobs.identity import Caller
from jobs.ledger.lineage import Origin
from jobs.models import Job, JobState
from jobs.store import Store
from jobs.tenant_store import TenantStore
from tests.builders import artifact_ref, digest, job_spec, submit, submit_for, teacher_ref

ACME, UMBRELLA = Caller("acme"), Caller("umbrella")

TELLING_NOTHING = {"create", "note_download"}  # a new job; a line that says what the caller did
WITH_A_JOB_ID = sorted(
    name
    for name, method in inspect.getmembers(TenantStore, inspect.isfunction)
    if not name.startswith("_") and "job_id" in inspect.signature(method).parameters and name not in TELLING_NOTHING
)


def finished(store: Store, *, tenant: str) -> Job:
    """A succeeded job with a file and a checkpoint."""
    job = submit_for(store, tenant=tenant)
    claim = store.claim("w", 60, 1)
    assert claim is not None
    assert claim.job.id == job.id
    assert store.record_checkpoint(job.id, claim.fence, step=1, sha256=digest("checkpoint"), num_bytes=7)
    assert store.succeed(job.id, claim.fence, artifacts=[artifact_ref()])
    return store.get(job.id)


def ask(tenant_store: TenantStore, name: str, job_id: str) -> Any:
    found = getattr(tenant_store, name)(job_id)
    return tenant_store.get(job_id) if name == "get_nowait" and found is None else found  # as the service does


def test_the_questions_about_one_job_are_these() -> None:
    assert WITH_A_JOB_ID == [
        "delete", "events", "get", "get_nowait", "get_with_position", "last_checkpoint", "request_cancel",
        "request_pause", "request_resume",
    ]  # fmt: skip


def test_a_foreign_job_is_not_there_and_is_left_alone(store: Store) -> None:
    for job in (finished(store, tenant="acme"), submit_for(store, tenant="acme")):
        before = store.get(job.id)
        for name in WITH_A_JOB_ID:
            with pytest.raises(JobNotFound):
                ask(store.of(UMBRELLA), name, job.id)
        assert store.get(job.id) == before


def test_the_same_questions_about_ones_own_are_answered(store: Store) -> None:
    ended = finished(store, tenant="acme")
    for name in [*WITH_A_JOB_ID[1:], "delete"]:
        asked = ended if name in {"delete", "last_checkpoint"} else submit_for(store, tenant="acme")
        ask(store.of(ACME), name, asked.id)


def test_a_page_holds_ones_own_jobs_whatever_the_filter_and_the_cursor(store: Store) -> None:
    ours = [submit_for(store, tenant="acme").id for _ in range(3)]
    theirs = [submit_for(store, tenant="umbrella").id for _ in range(3)]
    cursor = store.of(UMBRELLA).list(2).next_cursor
    assert [job.id for job in store.of(ACME).list(10).jobs] == ours[::-1]
    assert [job.id for job in store.of(ACME).list(10, states=[JobState.QUEUED]).jobs] == ours[::-1]
    assert [job.id for job in store.of(ACME).list(10, cursor).jobs] == ours[::-1]
    assert [job.id for job in store.list(10).jobs] == (ours + theirs)[::-1]


def test_labels_of_others_find_nothing(store: Store) -> None:
    submit(store, team="vision")
    assert store.of(ACME).list(10, labels={"team": "vision"}).jobs == []


def test_a_job_is_its_callers_with_the_priority_of_the_key(store: Store) -> None:
    job = submit_for(store, tenant="acme", priority=7)
    with store._database.connected(writes=False) as connection:
        row = connection.execute(text("SELECT tenant, priority FROM jobs")).one()
    assert tuple(row) == ("acme", 7)
    assert store.of(ACME).get(job.id).id == job.id


def test_the_same_bytes_are_kept_once_and_each_tenant_has_its_own_view(store: Store) -> None:
    ref = teacher_ref()
    first, new = store.of(ACME).put_teacher(ref.model_copy(update={"inspection": {"told_shape": [1, 32, 32]}}))
    with store._database.connected(writes=True) as connection:  # as if it had been long ago
        connection.execute(text("UPDATE tenant_teachers SET created_at = '2026-01-31T12:00:00.000Z'"))
        connection.commit()
    second, also_new = store.of(UMBRELLA).put_teacher(ref)
    assert (new, also_new, store.of(UMBRELLA).put_teacher(ref)[1]) == (True, True, False)
    assert (second.inspection, first.inspection) == ({}, {"told_shape": [1, 32, 32]})
    assert second.created_at - store.of(ACME).get_teacher(ref.id).created_at > timedelta(days=1)
    job = store.of(UMBRELLA).create(str(uuid.uuid4()), job_spec(), ref.id)
    assert job.teacher == second
    with store._database.connected(writes=False) as connection:
        assert connection.execute(text("SELECT count(*) FROM teachers")).scalar_one() == 1


def test_a_teacher_cannot_be_used_by_its_digest_alone(store: Store) -> None:
    ref, _ = store.of(ACME).put_teacher(teacher_ref())
    for attempt in (
        lambda: store.of(UMBRELLA).get_teacher(ref.id),
        lambda: store.of(UMBRELLA).create(str(uuid.uuid4()), job_spec(), ref.id),
    ):
        with pytest.raises(TeacherNotFound):
            attempt()
    assert store.list(10).jobs == []


@pytest.mark.parametrize("continues", [False, True])
def test_no_job_comes_from_a_foreign_one(store: Store, continues: bool) -> None:
    job = finished(store, tenant="acme")
    store.of(UMBRELLA).put_teacher(teacher_ref())
    with pytest.raises(JobNotFound):
        store.of(UMBRELLA).create(str(uuid.uuid4()), job_spec(), job.teacher.id, origin=Origin(job.id, continues))
    assert store.of(UMBRELLA).list(10).jobs == []


def test_a_file_that_two_tenants_have_stays_until_both_have_deleted_it(store: Store) -> None:
    ours, theirs = finished(store, tenant="acme"), finished(store, tenant="umbrella")
    shared = digest("student")
    store.of(ACME).delete(ours.id)
    assert store.referenced(shared)
    assert shared in store.of(UMBRELLA).delete(theirs.id).files
    assert not store.referenced(shared)
    assert store.referenced(ours.teacher.id)


def test_a_key_of_a_request_is_its_tenants(store: Store) -> None:
    first, second = store.of(ACME).keys, store.of(UMBRELLA).keys
    assert first.acquire(first.new_lease("k"), 60) is None
    assert second.acquire(second.new_lease("k"), 60) is None
    with pytest.raises(RequestInProgress):
        first.acquire(first.new_lease("k"), 60)


def test_no_text_of_a_key_is_that_of_another_tenants(store: Store) -> None:
    """The default tenant's stand in the table as they came; none of them can be what another's is called there."""
    name = store.of(ACME).keys.new_lease("k").key
    assert " " in name
    assert len(store.of(Caller("t" * 64)).keys.new_lease("k" * 255).key) <= 255
    assert store.keys.new_lease("k").key == "k"


def test_what_a_service_without_tenants_puts_in_becomes_the_default_tenants(store: Store) -> None:
    mine, _ = store.of(ACME).put_teacher(teacher_ref("mine"))
    old, _ = store.put_teacher(teacher_ref("old"))
    with store._database.connected(writes=True) as connection:
        connection.execute(text("DELETE FROM tenant_teachers WHERE tenant = 'default'"))
        connection.commit()
    job = store.of(Caller("default"))
    with pytest.raises(TeacherNotFound):
        job.get_teacher(old.id)
    assert (store.adopt_teachers(), store.adopt_teachers()) == (1, 0)
    assert job.get_teacher(old.id).id == old.id
    with pytest.raises(TeacherNotFound):
        job.get_teacher(mine.id)


def explained(store: Store, act: Callable[[], Any]) -> str:
    """How the database finds the rows of `jobs` that `act` asks for."""
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM jobs" in statement:
            asked.append((statement, parameters))

    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    sqlite = store._database.dialect == "sqlite"
    with engine.connect() as connection:
        if not sqlite:
            connection.exec_driver_sql("SET enable_seqscan = off")  # the tables are empty
            connection.exec_driver_sql("SET enable_sort = off")
        explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        return "\n".join(str(connection.exec_driver_sql(explain + sql, told).all()) for sql, told in asked)


def test_a_tenants_jobs_are_found_by_index(store: Store) -> None:
    job = submit_for(store, tenant="acme")
    ours = store.of(ACME)
    found = {
        "one": explained(store, lambda: ours.get(job.id)),
        "page": explained(store, lambda: ours.list(20)),
        "state": explained(store, lambda: ours.list(20, states=[JobState.QUEUED])),
    }
    assert "jobs_of_tenant " in found["page"].replace("(", " ")
    assert "jobs_of_tenant_by_state" in found["state"]
    if store._database.dialect == "sqlite":
        assert "sqlite_autoindex_jobs_1 (id=?)" in found["one"]
        for plan in found.values():
            assert "SCAN" not in plan
            assert "TEMP B-TREE" not in plan
    else:
        assert "Seq Scan on jobs" not in "".join(found.values())
