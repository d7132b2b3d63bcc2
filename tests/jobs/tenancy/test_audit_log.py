"""The audit log: each action writes a line in its own transaction, and old lines are removed."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import InvalidTransition
from jobs.identity import Caller
from jobs.ledger.lineage import Origin
from jobs.store import Store
from jobs.tenancy import audit_log
from jobs.tenancy.audit_log import AuditEntry
from tests.builders import job_spec, teacher_ref
from tests.jobs.clockwork import age_audit

WHO = Caller("a", key_id="key-7", request_id="request-1")


def told(line: AuditEntry) -> tuple[str, str, str | None, str]:
    return line.act, line.object_id, line.detail, line.outcome


def test_every_act_leaves_a_line_and_a_deleted_job_keeps_its_lines(store: Store) -> None:
    mine = store.of(WHO)
    teacher, _ = mine.put_teacher(teacher_ref())
    mine.put_teacher(teacher_ref())
    job = mine.create(str(uuid.uuid4()), job_spec(), teacher.id)
    mine.request_pause(job.id)
    mine.request_pause(job.id)
    mine.request_resume(job.id)
    mine.request_cancel(job.id)
    again = mine.create(str(uuid.uuid4()), job_spec(), teacher.id, origin=Origin(job.id, continues=False))
    mine.delete(job.id)
    lines = list(store.audit_log.read())
    assert [told(line) for line in lines] == [
        ("uploaded", teacher.id, None, "done"),
        ("uploaded", teacher.id, None, "unchanged"),
        ("submitted", job.id, teacher.id, "done"),
        ("paused", job.id, None, "done"),
        ("paused", job.id, None, "unchanged"),
        ("resumed", job.id, None, "done"),
        ("cancelled", job.id, None, "done"),
        ("retried", again.id, job.id, "done"),
        ("deleted", job.id, None, "done"),
    ]
    assert {(line.tenant, line.key_id, line.request_id) for line in lines} == {("a", "key-7", "request-1")}
    assert all(abs(line.at - datetime.now(UTC)) < timedelta(minutes=5) for line in lines)


def test_a_continuation_names_the_job_from_which_it_comes(store: Store) -> None:
    teacher, _ = store.put_teacher(teacher_ref())
    first = store.create(str(uuid.uuid4()), job_spec(), teacher.id)
    assert store.claim("me", 60, 1) is not None
    assert store.record_checkpoint(first.id, 1, step=1, sha256=teacher.id, num_bytes=7)
    assert store.succeed(first.id, 1, artifacts=[])
    second = store.create(str(uuid.uuid4()), job_spec(), teacher.id, origin=Origin(first.id, continues=True))
    (line,) = store.audit_log.read(object_id=second.id)
    assert told(line) == ("continued", second.id, first.id, "done")


def test_what_did_not_take_place_leaves_no_entry_from_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, _ = store.put_teacher(teacher_ref())
    job = store.create(str(uuid.uuid4()), job_spec(), teacher.id)
    before = list(store.audit_log.read())
    with pytest.raises(InvalidTransition):
        store.delete(job.id)
    monkeypatch.setattr(audit_log, "insert", lambda _table: 1 / 0)  # neither the act without its line
    with pytest.raises(ZeroDivisionError):
        store.request_cancel(job.id)
    monkeypatch.undo()
    assert list(store.audit_log.read()) == before
    assert store.get(job.id).public_state == "queued"


def test_lines_are_found_by_tenant_object_and_time_on_any_number_of_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "PAGE", 2)
    for number in range(5):
        store.of(Caller("a" if number % 2 else "b")).note_download(f"job-{number}", "report.json")
    assert {told(line)[2:] for line in store.audit_log.read()} == {("report.json", "begun")}
    assert [line.object_id for line in store.audit_log.read()] == [f"job-{number}" for number in range(5)]
    assert [line.object_id for line in store.audit_log.read(tenant="a")] == ["job-1", "job-3"]
    assert [line.tenant for line in store.audit_log.read(object_id="job-4")] == ["b"]
    assert len(list(store.audit_log.read(since=datetime.now(UTC) - timedelta(hours=1)))) == 5
    assert list(store.audit_log.read(since=datetime.now(UTC) + timedelta(hours=1))) == []


def test_lines_go_when_their_time_is_over(store: Store) -> None:
    store.put_teacher(teacher_ref())
    age_audit(store, 3600.0)
    store.put_teacher(teacher_ref())
    assert store.audit_log.delete_old(7200.0) == 0
    assert store.audit_log.delete_old(1800.0) == 1
    assert [line.outcome for line in store.audit_log.read()] == ["unchanged"]
