"""Teachers in the ledger: each is kept once, and its row says until when.

own      it was uploaded by itself: until it is deleted by itself
jobs     it came along with a job: until the last job that uses it is deleted
deleted  its bytes are gone; the row stays for the finished jobs that tell of it, and goes with the last of them
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, update

from jobs import tables
from jobs.clock import now
from jobs.database import Transaction, dialect_insert
from jobs.errors import TeacherNotFound
from jobs.rows import json_text, teacher_from_row
from jobs.schemas import TeacherRef

_teachers = tables.teachers


class Lifetime(StrEnum):
    """Until when a teacher is kept."""

    OWN = "own"
    JOBS = "jobs"
    DELETED = "deleted"


def keep(transaction: Transaction, ref: TeacherRef, lifetime: Lifetime) -> tuple[TeacherRef, bool]:
    """Keep a teacher once, for the longer of two lifetimes → what is kept, with database time, and whether it is new.

    One that was deleted is new.
    """
    values = ref.model_dump(exclude={"id", "inspection", "created_at"})
    values |= {"inspection": json_text(ref.inspection), "created_at": now(), "lifetime": lifetime}
    statement = dialect_insert(transaction.connection, _teachers).values(id=ref.id, **values)
    again = statement.on_conflict_do_update(
        index_elements=[_teachers.c.id], set_=values, where=_teachers.c.lifetime == Lifetime.DELETED
    )
    new = transaction.connection.execute(again.returning(_teachers.c.id)).first() is not None
    if not new and lifetime is Lifetime.OWN:
        shorter = [_teachers.c.id == ref.id, _teachers.c.lifetime == Lifetime.JOBS]
        transaction.connection.execute(update(_teachers).where(*shorter).values(lifetime=lifetime))
    return teacher_from_row(shared_row(transaction.connection, ref.id)), new


def shared_row(connection: Connection, teacher_id: str) -> Row[Any]:
    """A teacher's row, which nobody deletes until the transaction ends; TeacherNotFound."""
    return _row(connection, teacher_id, alone=False)


def locked_row(connection: Connection, teacher_id: str) -> Row[Any]:
    """A teacher's row, locked until the transaction ends; TeacherNotFound."""
    return _row(connection, teacher_id, alone=True)


def has_bytes() -> ColumnElement[bool]:
    """The teacher's bytes are kept."""
    return _teachers.c.lifetime != Lifetime.DELETED


def _row(connection: Connection, teacher_id: str, *, alone: bool) -> Row[Any]:
    statement = select(_teachers).where(_teachers.c.id == teacher_id, has_bytes())
    row = connection.execute(statement.with_for_update(read=not alone)).one_or_none()
    if row is None:
        raise TeacherNotFound(teacher_id)
    return row
