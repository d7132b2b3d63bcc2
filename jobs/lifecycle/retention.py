"""Retention: when rows stop referring to the files of finished jobs, and when unused teachers are deleted.

A finished job keeps its published files for the retention period, and its last checkpoint for a shorter one. After
that its row refers to no file, downloads answer 410, and no job can continue it. A teacher is kept for the retention
period after its tenant last used it; then it is deleted as if the tenant had deleted it. Garbage collection removes
files to which no row refers. An infinite retention period never ends.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, exists, false, or_, select, union

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now
from jobs.db.mapping import change
from jobs.ledger.lineage import NO_CHECKPOINTS, NO_PREVIOUS_CHECKPOINT
from jobs.ledger.queries import locked_row
from jobs.lifecycle import deletion
from jobs.models import TERMINAL
from jobs.tenancy import teachers
from jobs.tenancy.teachers import has_bytes, is_live, last_use

BATCH = 500

_jobs, _artifacts, _links = tables.jobs, tables.artifacts, tables.tenant_teachers


class Expired(StrEnum):
    """What the row of a finished job refers to no longer."""

    FILES = "its files"  # and its checkpoints
    CHECKPOINT = "its checkpoint"
    SUPERSEDED = "its checkpoint before the last"


@dataclass(frozen=True, slots=True)
class ExpiredJob:
    """A finished job whose row will drop references to files."""

    job_id: str
    what: Expired


@dataclass(frozen=True, slots=True)
class UnusedTeacher:
    """A teacher that a tenant has, and has not used for the retention period."""

    tenant: str
    teacher_id: str


def expirable(
    connection: Connection, retention_seconds: float, checkpoint_retention_seconds: float
) -> list[ExpiredJob]:
    """Up to BATCH finished jobs that still refer to files that are past their retention, oldest first."""
    found = _expired(retention_seconds, checkpoint_retention_seconds)
    statement = select(_jobs.c.id, found.label("what")).where(_finished(), found.is_not(None))
    rows = connection.execute(statement.order_by(_jobs.c.number).limit(BATCH))
    return [ExpiredJob(row.id, Expired[row.what]) for row in rows]


def expire(
    transaction: Transaction, job_id: str, retention_seconds: float, checkpoint_retention_seconds: float
) -> None:
    """Drop the references that `expirable` names; a job whose periods are not over keeps its files.

    Raises:
        JobNotFound: The job has been deleted.
    """
    row = locked_row(transaction.connection, None, job_id)
    guard = [_jobs.c.number == row.number, _finished()]
    found = select(_expired(retention_seconds, checkpoint_retention_seconds)).where(*guard)
    match transaction.connection.execute(found).scalar_one_or_none():
        case Expired.FILES.name:
            names = _drop_files(transaction.connection, row)
            change(transaction, guard, dict(NO_CHECKPOINTS), [("expired", {"artifacts": names})])
        case Expired.CHECKPOINT.name:
            change(transaction, guard, dict(NO_CHECKPOINTS), [("expired", {"artifacts": [], "checkpoint": True})])
        case Expired.SUPERSEDED.name:
            change(transaction, guard, dict(NO_PREVIOUS_CHECKPOINT))


def unused_teachers(connection: Connection, retention_seconds: float) -> list[UnusedTeacher]:
    """Up to BATCH teachers of tenants that have not used them for the retention period, oldest first."""
    found = select(_links.c.tenant, _links.c.teacher_id).where(_unused(retention_seconds))
    oldest_first = found.order_by(last_use(), _links.c.tenant, _links.c.teacher_id)
    return [UnusedTeacher(row.tenant, row.teacher_id) for row in connection.execute(oldest_first.limit(BATCH))]


def expire_teacher(transaction: Transaction, unused: UnusedTeacher, retention_seconds: float) -> bool:
    """Delete a teacher as if its tenant had deleted it; False if it is used again or was deleted already."""
    teachers.lock(
        transaction.connection, unused.teacher_id
    )  # another transaction has used the teacher already, or will find it deleted
    one = (_links.c.tenant == unused.tenant, _links.c.teacher_id == unused.teacher_id)
    still = select(_links.c.teacher_id).where(*one, _unused(retention_seconds))
    if transaction.connection.execute(still).first() is None:
        return False
    deletion.delete_locked_teacher(transaction, unused.tenant, unused.teacher_id)
    return True


def references(connection: Connection) -> set[str]:
    """Return all sha256 digests referenced by any row: teachers, published files and checkpoints."""
    columns = (
        _artifacts.c.sha256,
        _jobs.c.checkpoint_sha256,
        _jobs.c.previous_checkpoint_sha256,
    )
    kept = [select(column).where(column.is_not(None)) for column in columns]
    found = connection.execute(union(select(tables.teachers.c.id).where(has_bytes(None)), *kept))
    return set(found.scalars())


def _drop_files(connection: Connection, row: Row[Any]) -> list[str]:
    dropped = delete(_artifacts).where(_artifacts.c.job_number == row.number).returning(_artifacts.c.name)
    return sorted(connection.execute(dropped).scalars())


def _finished() -> ColumnElement[bool]:
    return _jobs.c.state.in_(TERMINAL)


def _expired(retention_seconds: float, checkpoint_retention_seconds: float) -> ColumnElement[str | None]:
    """Return an expression for what a finished job still refers to past its retention: a name of `Expired`, or NULL.

    A checkpoint is never kept for longer than the files.
    """
    has_files = exists().where(_artifacts.c.job_number == _jobs.c.number)
    has_checkpoint = _jobs.c.checkpoint_sha256.is_not(None)
    finished, shorter_seconds = _jobs.c.finished_at, min(retention_seconds, checkpoint_retention_seconds)
    return case(
        (and_(has_files, _is_before(finished, retention_seconds)), Expired.FILES.name),
        (and_(has_checkpoint, _is_before(finished, shorter_seconds)), Expired.CHECKPOINT.name),
        (_jobs.c.previous_checkpoint_sha256.is_not(None), Expired.SUPERSEDED.name),
    )


def _unused(retention_seconds: float) -> ColumnElement[bool]:
    """Return the condition that a tenant has not used a teacher for the retention period, neither by an upload nor by a
    job.

    The index on jobs by teacher finds the jobs that use the teacher.
    """
    used = or_(_jobs.c.finished_at.is_(None), ~_is_before(_jobs.c.finished_at, retention_seconds))
    users = select(_jobs.c.tenant).where(_jobs.c.teacher_id == _links.c.teacher_id, used)
    return and_(is_live(), _is_before(last_use(), retention_seconds), _links.c.tenant.not_in(users))


def _is_before(moment: ColumnElement[Any], retention_seconds: float) -> ColumnElement[bool]:
    """Return the condition that a retention period which began at `moment` is over. An infinite period never is."""
    return false() if math.isinf(retention_seconds) else moment <= now(-retention_seconds)
