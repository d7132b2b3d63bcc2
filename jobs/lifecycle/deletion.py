"""Deletion of a finished job or a teacher with all that belongs to it, and the receipt of the deletion.

One transaction deletes the rows. Then the files to which no row refers are removed; garbage collection removes those
that cannot be removed now. The receipt never reveals whether another tenant has the same file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, exists, select, update

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now
from jobs.db.transactional import HasContext
from jobs.errors import (
    ArtifactNotFound,
    InvalidTransition,
    JobNotFound,
    LedgerUnavailable,
    TeacherInUse,
    TeacherNotFound,
)
from jobs.files.artifacts import ArtifactStore
from jobs.ledger import queries
from jobs.ledger.context import LedgerContext
from jobs.ledger.lineage import NO_CHECKPOINTS
from jobs.lifecycle import idempotency
from jobs.models import TERMINAL, JobState, PurgedFile, PurgeReceipt, RetainedFile
from jobs.tenancy import audit_log, teachers
from jobs.tenancy.audit_log import AuditAction
from jobs.tenancy.teachers import Lifetime

TEACHER, CHECKPOINT = "teacher", "checkpoint"
OTHERS_USE_IT = "other jobs of yours use it"
ON_ITS_OWN = "it was uploaded by itself, and is deleted by itself"
SAME_BYTES = "a teacher or another job of yours has the same bytes"
LATER = "the store could not remove it now; no row refers to it, so garbage collection will"

_jobs, _artifacts = tables.jobs, tables.artifacts


@dataclass(slots=True)
class DeletedRecord:
    """The rows and files that one transaction deleted, from which the receipt is made."""

    kind: Literal["job", "teacher"]
    id: str
    deleted_at: datetime
    rows: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)  # by digest: roles of files that the tenant no longer has
    kept: list[RetainedFile] = field(default_factory=list)

    def count(self, table: str, rows: int) -> None:
        """Count deleted rows for the receipt."""
        if rows:
            self.rows[table] = self.rows.get(table, 0) + rows

    def note_files(self, connection: Connection, tenant: str, files: dict[str, list[str]]) -> None:
        """Note the files of the deleted rows. A file to which another row of the tenant refers is kept."""
        for sha256, role in sorted(files.items()):
            if queries.is_referenced(connection, sha256, tenant):
                self.kept.append(RetainedFile(sha256=sha256, role=role, reason=SAME_BYTES))
            else:
                self.files[sha256] = role


def delete_job(transaction: Transaction, context: LedgerContext, job_id: str) -> DeletedRecord:
    """Delete a finished job with its history. A teacher that was sent with jobs is deleted with the last of them.

    Raises:
        JobNotFound: The job does not exist.
        InvalidTransition: The job has not finished.
    """
    connection, caller, tenant = transaction.connection, context.caller, context.tenant
    teachers.lock(connection, queries.teacher_id_of(connection, tenant, job_id))
    row = queries.locked_row(connection, tenant, job_id)
    if row.state not in TERMINAL:
        raise InvalidTransition(JobState(row.state), allowed=TERMINAL)
    record = DeletedRecord("job", job_id, _time(connection))
    files = _files(connection, row)
    record.count("requests", idempotency.delete_outcomes_about(transaction, row.tenant, [job_id]))
    for table in (_artifacts, tables.labels, tables.events):
        gone = connection.execute(delete(table).where(table.c.job_number == row.number)).rowcount
        record.count(table.name, gone)
    record.count("jobs", connection.execute(delete(_jobs).where(_jobs.c.number == row.number)).rowcount)
    audit_log.append(transaction, caller, AuditAction.DELETED, job_id)
    if _delete_teacher_of(transaction, row, record):
        files.setdefault(row.teacher_id, []).append(TEACHER)
        audit_log.append(transaction, caller, AuditAction.DELETED, row.teacher_id, detail=job_id)
    record.note_files(connection, row.tenant, files)
    return record


def delete_teacher(transaction: Transaction, context: LedgerContext, teacher_id: str) -> DeletedRecord:
    """Delete a teacher of the caller's tenant, and the checkpoints of the jobs that used it.

    Raises:
        TeacherNotFound: The tenant does not have this teacher.
        TeacherInUse: Jobs that have not finished use it.
    """
    teachers.lock(transaction.connection, teacher_id)
    record = delete_locked_teacher(transaction, context.caller.tenant, teacher_id)
    audit_log.append(transaction, context.caller, AuditAction.DELETED, teacher_id)
    return record


def delete_locked_teacher(transaction: Transaction, tenant: str, teacher_id: str) -> DeletedRecord:
    """Delete a teacher, and the checkpoints of the finished jobs that used it, which are useless without the teacher.

    The jobs and their students stay.

    Raises:
        TeacherNotFound: The tenant does not have this teacher.
        TeacherInUse: Jobs that have not finished use it.
    """
    connection = transaction.connection
    teachers.teacher_with_id(connection, tenant, teacher_id)
    its_jobs = (_jobs.c.tenant == tenant, _jobs.c.teacher_id == teacher_id)
    used = connection.execute(select(_jobs).where(*its_jobs)).all()
    live = sum(row.state not in TERMINAL for row in used)
    if live:
        raise TeacherInUse(live)
    record = DeletedRecord("teacher", teacher_id, _time(connection))
    files: dict[str, list[str]] = {teacher_id: [TEACHER]}
    for sha256 in _checkpoints(used):
        files.setdefault(sha256, []).append(CHECKPOINT)
    connection.execute(update(_jobs).where(*its_jobs).values(dict(NO_CHECKPOINTS)))
    answers = idempotency.delete_outcomes_about(transaction, tenant, [teacher_id, *(row.id for row in used)])
    record.count("requests", answers)
    teachers.remove_from_tenant(connection, tenant, teacher_id, has_jobs=bool(used))
    record.count("teachers", 1)
    record.note_files(connection, tenant, files)
    return record


def as_method(
    delete: Callable[[Transaction, LedgerContext, str], DeletedRecord],
) -> Callable[[HasContext[LedgerContext], str], DeletedRecord]:
    """Return a method of a store that deletes in one transaction.

    If the reply to the commit was lost, the transaction is tried again and finds nothing. The method then returns the
    record of the first try.
    """

    @wraps(delete)
    def method(self: HasContext[LedgerContext], object_id: str, /) -> DeletedRecord:
        first: DeletedRecord | None = None

        def work(transaction: Transaction) -> DeletedRecord:
            nonlocal first
            try:
                first = delete(transaction, self._context, object_id)
            except (JobNotFound, TeacherNotFound):
                if first is None:
                    raise
            return first

        return self._database.write(work)

    return method


def remove_files(record: DeletedRecord, artifacts: ArtifactStore, referenced: Callable[[str], bool]) -> PurgeReceipt:
    """Remove the files of a deletion to which no row refers any more, and return the receipt."""
    files, kept = [], list(record.kept)
    for sha256, role in record.files.items():
        try:
            size = artifacts.size(sha256)
            gone = bool(artifacts.remove_unreferenced([sha256], referenced)) or referenced(sha256)
        except ArtifactNotFound:  # the file was lost before, so there is nothing to remove
            continue
        except LedgerUnavailable:
            gone = False
        if gone:
            files.append(PurgedFile(sha256=sha256, bytes=size, role=role))
        else:
            kept.append(RetainedFile(sha256=sha256, role=role, reason=LATER))
    return PurgeReceipt(
        kind=record.kind,
        id=record.id,
        deleted_at=record.deleted_at,
        rows=record.rows,
        files=files,
        kept=kept,
    )


def _delete_teacher_of(transaction: Transaction, row: Row[Any], record: DeletedRecord) -> bool:
    """Delete the teacher of a deleted job if it was sent with jobs and this was the last of them; True if so."""
    connection, tenant, teacher_id = transaction.connection, row.tenant, row.teacher_id
    lifetime = teachers.lifetime_of(connection, tenant, teacher_id)
    others = exists().where(_jobs.c.tenant == tenant, _jobs.c.teacher_id == teacher_id)
    used = bool(connection.execute(select(others)).scalar_one())
    if lifetime is None or (used and lifetime is Lifetime.DELETED):
        return False
    if used or lifetime is Lifetime.OWN:
        reason = ON_ITS_OWN if lifetime is Lifetime.OWN else OTHERS_USE_IT
        record.kept.append(RetainedFile(sha256=teacher_id, role=[TEACHER], reason=reason))
        teachers.record_use(connection, tenant, teacher_id, row.finished_at)
        return False
    record.count("requests", idempotency.delete_outcomes_about(transaction, tenant, [teacher_id]))
    teachers.remove_from_tenant(connection, tenant, teacher_id, has_jobs=False)
    record.count("teachers", 1)
    return lifetime is not Lifetime.DELETED


def _files(connection: Connection, row: Row[Any]) -> dict[str, list[str]]:
    """Return the digests of the files to which a job refers, each with the roles of the file."""
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
