"""Deletion of a finished job or a teacher with all that belongs to it, and the receipt of the deletion.

One transaction deletes the rows. Then the files to which no row refers are removed; garbage collection removes those
that cannot be removed now. The receipt never reveals whether another tenant has the same file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, exists, select, update

from jobs.db import tables
from jobs.db.database import Database, Transaction
from jobs.db.db_time import now
from jobs.errors import (
    ArtifactNotFound,
    InvalidTransition,
    JobNotFound,
    LedgerUnavailable,
    TeacherInUse,
    TeacherNotFound,
)
from jobs.files.artifacts import ArtifactStore
from jobs.identity import Caller
from jobs.ledger import queries
from jobs.lifecycle import idempotency
from jobs.models import TERMINAL, JobState, PurgedFile, PurgeReceipt, RetainedFile
from jobs.tenancy import audit_log, teachers
from jobs.tenancy.audit_log import AuditAction
from jobs.tenancy.teachers import Lifetime

TEACHER, CHECKPOINT = "teacher", "checkpoint"
OTHERS_USE_IT = "other jobs of yours use it"
ON_ITS_OWN = "it was uploaded by itself, and is deleted by itself"
SAME_BYTES = "a teacher or another job of yours has the same bytes"
LATER = "the store could not remove it now; no row refers to it, so the janitor will"

_jobs, _artifacts = tables.jobs, tables.artifacts


@dataclass(slots=True)
class DeletedRecord:
    """The rows and files that one transaction deleted, from which the receipt is made."""

    kind: Literal["job", "teacher"]
    id: str
    deleted_at: datetime
    rows: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)  # digests that are the tenant's no longer; what they were
    kept: list[RetainedFile] = field(default_factory=list)

    def count(self, table: str, rows: int) -> None:
        """Count deleted rows for the receipt."""
        if rows:
            self.rows[table] = self.rows.get(table, 0) + rows

    def let_go(self, connection: Connection, tenant: str, files: dict[str, list[str]]) -> None:
        """Note files that the rows spoke of, by whether another row of the tenant does."""
        for sha256, role in sorted(files.items()):
            if queries.is_referenced(connection, sha256, tenant):
                self.kept.append(RetainedFile(sha256=sha256, role=role, reason=SAME_BYTES))
            else:
                self.files[sha256] = role


def forget_job(transaction: Transaction, caller: Caller, tenant: str | None, job_id: str) -> DeletedRecord:
    """Delete a terminal job with all that hangs on it; JobNotFound, InvalidTransition."""
    connection = transaction.connection
    teachers.lock(connection, queries.teacher_id_of(connection, tenant, job_id))
    row = queries.locked_row(connection, tenant, job_id)
    if row.state not in TERMINAL:
        raise InvalidTransition(JobState(row.state), allowed=TERMINAL)
    forgotten = DeletedRecord("job", job_id, _time(connection))
    files = _files(connection, row)
    forgotten.count("requests", idempotency.forget_about(transaction, row.tenant, [job_id]))
    for table in (_artifacts, tables.labels, tables.events):
        gone = connection.execute(delete(table).where(table.c.job_number == row.number)).rowcount
        forgotten.count(table.name, gone)
    forgotten.count("jobs", connection.execute(delete(_jobs).where(_jobs.c.number == row.number)).rowcount)
    audit_log.append(transaction, caller, AuditAction.DELETED, job_id)
    if _forget_teacher_of(transaction, row, forgotten):
        files.setdefault(row.teacher_id, []).append(TEACHER)
        audit_log.append(transaction, caller, AuditAction.DELETED, row.teacher_id, detail=job_id)
    forgotten.let_go(connection, row.tenant, files)
    return forgotten


def forget_teacher(transaction: Transaction, caller: Caller, teacher_id: str) -> DeletedRecord:
    """Delete a teacher as its tenant asked; TeacherNotFound, TeacherInUse."""
    teachers.lock(transaction.connection, teacher_id)
    forgotten = forget_locked_teacher(transaction, caller.tenant, teacher_id)
    audit_log.append(transaction, caller, AuditAction.DELETED, teacher_id)
    return forgotten


def forget_locked_teacher(transaction: Transaction, tenant: str, teacher_id: str) -> DeletedRecord:
    """Delete a teacher, and the checkpoints of the finished jobs that used it: without it they are of no use.

    The jobs stay, with their students. TeacherNotFound; TeacherInUse.
    """
    connection = transaction.connection
    teachers.teacher_with_id(connection, tenant, teacher_id)
    its_jobs = (_jobs.c.tenant == tenant, _jobs.c.teacher_id == teacher_id)
    used = connection.execute(select(_jobs).where(*its_jobs)).all()
    live = sum(row.state not in TERMINAL for row in used)
    if live:
        raise TeacherInUse(live)
    forgotten = DeletedRecord("teacher", teacher_id, _time(connection))
    files: dict[str, list[str]] = {teacher_id: [TEACHER]}
    for sha256 in _checkpoints(used):
        files.setdefault(sha256, []).append(CHECKPOINT)
    nothing = {"checkpoint_sha256": None, "previous_checkpoint_sha256": None}
    connection.execute(update(_jobs).where(*its_jobs).values(nothing))
    answers = idempotency.forget_about(transaction, tenant, [teacher_id, *(row.id for row in used)])
    forgotten.count("requests", answers)
    teachers.forget(connection, tenant, teacher_id, jobs_tell_of_it=bool(used))
    forgotten.count("teachers", 1)
    forgotten.let_go(connection, tenant, files)
    return forgotten


def once(database: Database, forget: Callable[[Transaction], DeletedRecord]) -> DeletedRecord:
    """Forget in one transaction; where the reply to its commit was lost, that is what the first try found."""
    first: DeletedRecord | None = None

    def work(transaction: Transaction) -> DeletedRecord:
        nonlocal first
        try:
            first = forget(transaction)
        except (JobNotFound, TeacherNotFound):
            if first is None:
                raise
        return first

    return database.write(work)


def removed(forgotten: DeletedRecord, artifacts: ArtifactStore, referenced: Callable[[str], bool]) -> PurgeReceipt:
    """Remove the files of what was forgotten, where nobody has them → the receipt."""
    files, kept = [], list(forgotten.kept)
    for sha256, role in forgotten.files.items():
        try:
            size = artifacts.size(sha256)
            gone = bool(artifacts.remove_unreferenced([sha256], referenced)) or referenced(sha256)
        except ArtifactNotFound:  # lost before: there is nothing to remove
            continue
        except LedgerUnavailable:
            gone = False
        if gone:
            files.append(PurgedFile(sha256=sha256, bytes=size, role=role))
        else:
            kept.append(RetainedFile(sha256=sha256, role=role, reason=LATER))
    return PurgeReceipt(
        kind=forgotten.kind,
        id=forgotten.id,
        deleted_at=forgotten.deleted_at,
        rows=forgotten.rows,
        files=files,
        kept=kept,
    )


def _forget_teacher_of(transaction: Transaction, row: Row[Any], forgotten: DeletedRecord) -> bool:
    """A teacher that came along with jobs goes with the last of them; whether this was the last, and there was one."""
    connection, tenant, teacher_id = transaction.connection, row.tenant, row.teacher_id
    lifetime = teachers.lifetime_of(connection, tenant, teacher_id)
    others = exists().where(_jobs.c.tenant == tenant, _jobs.c.teacher_id == teacher_id)
    used = bool(connection.execute(select(others)).scalar_one())
    if lifetime is None or (used and lifetime is Lifetime.DELETED):
        return False
    if used or lifetime is Lifetime.OWN:
        reason = ON_ITS_OWN if lifetime is Lifetime.OWN else OTHERS_USE_IT
        forgotten.kept.append(RetainedFile(sha256=teacher_id, role=[TEACHER], reason=reason))
        teachers.note_use(connection, tenant, teacher_id, row.finished_at)
        return False
    forgotten.count("requests", idempotency.forget_about(transaction, tenant, [teacher_id]))
    teachers.forget(connection, tenant, teacher_id, jobs_tell_of_it=False)
    forgotten.count("teachers", 1)
    return lifetime is not Lifetime.DELETED


def _files(connection: Connection, row: Row[Any]) -> dict[str, list[str]]:
    """The digests of the files to which a job refers, each with the roles of the file."""
    found: dict[str, list[str]] = {}
    published = select(_artifacts).where(_artifacts.c.job_number == row.number).order_by(_artifacts.c.name)
    for artifact in connection.execute(published):
        found.setdefault(artifact.sha256, []).append(artifact.name)
    for sha256 in _checkpoints([row]):
        found.setdefault(sha256, []).append(CHECKPOINT)
    return found


def _checkpoints(rows: Sequence[Row[Any]]) -> list[str]:
    kept = {row.checkpoint_sha256 for row in rows} | {row.previous_checkpoint_sha256 for row in rows}
    return sorted(sha256 for sha256 in kept if sha256 is not None)


def _time(connection: Connection) -> datetime:
    return connection.execute(select(now())).scalar_one()
