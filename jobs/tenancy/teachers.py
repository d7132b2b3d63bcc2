"""Teachers of tenants: which tenant has which teacher, and until when.

The bytes of a teacher are kept once, under their digest, whoever has uploaded them. What a tenant sees of it is its
own: when it came, and what was found under what this tenant said. Knowing a digest is not having the teacher.

own      it was uploaded by itself: until it is deleted by itself
jobs     it came along with a job: until the last job of the tenant that uses it is deleted
deleted  the tenant has it no longer; the row stays for the finished jobs that tell of it, until the last is deleted

One that the tenant has not used for the retention period is deleted by `retention`. Used is what is uploaded, again or
for the first time, and what a live job needs, until that has ended; `used_at` is the last use of which no job tells.

Whoever changes who has a teacher, or relies on it, locks its row first, before any row of a job.
"""

import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from jobs.db import tables
from jobs.db.database import Transaction, dialect_insert
from jobs.db.db_time import now
from jobs.db.mapping import json_text, teacher_from_row
from jobs.db.row_security import as_all_tenants
from jobs.digests import is_digest
from jobs.errors import TeacherNotFound
from jobs.identity import DEFAULT_TENANT
from jobs.models import DEPTH, TERMINAL, TeacherRef

_NOTHING = "{}"

_teachers, _held = tables.teachers, tables.tenant_teachers


class Lifetime(StrEnum):
    """Until when a tenant has a teacher."""

    OWN = "own"
    JOBS = "jobs"
    DELETED = "deleted"


def is_live() -> ColumnElement[bool]:
    """The tenant of a row of `tenant_teachers` has the teacher still."""
    return _held.c.lifetime != Lifetime.DELETED


_ONE_TEACHER: Select[Any] = (
    select(_teachers.c.id, _teachers.c.bytes, _teachers.c.format, _held.c.inspection, _held.c.created_at)
    .join(_held, _held.c.teacher_id == _teachers.c.id)
    .where(_held.c.tenant == bindparam("tenant"), _teachers.c.id == bindparam("id"), is_live())
)


def teacher_with_id(connection: Connection, tenant: str, teacher_id: str) -> TeacherRef:
    """One teacher of a tenant; TeacherNotFound."""
    if not is_digest(teacher_id):
        raise TeacherNotFound(teacher_id)
    row = connection.execute(_ONE_TEACHER, {"tenant": tenant, "id": teacher_id}).one_or_none()
    if row is None:
        raise TeacherNotFound(teacher_id)
    return teacher_from_row(row)


def put(transaction: Transaction, tenant: str, ref: TeacherRef, lifetime: Lifetime) -> tuple[TeacherRef, bool]:
    """Note that a tenant has a teacher from now on, for the longer of two lifetimes → what is kept, with database time,
    and whether it is new to this tenant. One that was deleted is new.
    """
    connection = transaction.connection
    told = {"inspection": json_text(ref.inspection), "created_at": now()}
    kept = {"id": ref.id, "bytes": ref.bytes, "format": ref.format, **told}
    there = dialect_insert(connection, _teachers).values(kept)
    locked = there.on_conflict_do_update(index_elements=[_teachers.c.id], set_={"format": ref.format}, where=false())
    with as_all_tenants(connection):  # another tenant may have brought it
        connection.execute(locked)  # where it is there already: unchanged, and nobody deletes it now
    values = {**told, "lifetime": lifetime, "used_at": now()}
    holds = dialect_insert(connection, _held).values(tenant=tenant, teacher_id=ref.id, **values)
    again = holds.on_conflict_do_update(
        index_elements=[_held.c.tenant, _held.c.teacher_id], set_=values, where=_held.c.lifetime == Lifetime.DELETED
    )
    new = connection.execute(again.returning(_held.c.tenant)).first() is not None
    if not new:
        _change(connection, tenant, ref.id, {"used_at": now()})
    if not new and lifetime is Lifetime.OWN:
        _change(connection, tenant, ref.id, {"lifetime": lifetime})
    return teacher_with_id(connection, tenant, ref.id), new


def use(connection: Connection, tenant: str, teacher_id: str) -> None:
    """Nobody deletes a teacher of a tenant until the transaction ends; TeacherNotFound."""
    lock(connection, teacher_id, alone=False)
    teacher_with_id(connection, tenant, teacher_id)


def lock(connection: Connection, teacher_id: str, *, alone: bool = True) -> None:
    """Until the transaction ends, nobody comes to have a teacher or ceases to; not `alone`: nobody ceases to."""
    if is_digest(teacher_id):
        row = select(_teachers.c.id).where(_teachers.c.id == teacher_id)
        connection.execute(row.with_for_update(read=not alone)).one_or_none()


def lifetime_of(connection: Connection, tenant: str, teacher_id: str) -> Lifetime | None:
    """Until when a tenant has a teacher; None where nothing is known of it."""
    found = connection.execute(select(_held.c.lifetime).where(*_holding(tenant, teacher_id))).scalar_one_or_none()
    return None if found is None else Lifetime(found)


def note_use(connection: Connection, tenant: str, teacher_id: str, until: datetime) -> None:
    """A tenant has used a locked teacher until then, and no job will tell."""
    connection.execute(update(_held).where(*_holding(tenant, teacher_id), last_use() < until).values(used_at=until))


def last_use() -> ColumnElement[datetime]:
    """When a tenant used a teacher last, as far as no job tells."""
    found: ColumnElement[datetime] = func.coalesce(_held.c.used_at, _held.c.created_at)
    return found


def forget(connection: Connection, tenant: str, teacher_id: str, *, jobs_tell_of_it: bool) -> None:
    """A tenant has a locked teacher no longer; what nobody has and no job tells of is no teacher any more."""
    if jobs_tell_of_it:
        _change(connection, tenant, teacher_id, {"lifetime": Lifetime.DELETED, "inspection": _NOTHING})
    else:
        connection.execute(delete(_held).where(*_holding(tenant, teacher_id)))
    left = or_(exists().where(_held.c.teacher_id == teacher_id), exists().where(tables.jobs.c.teacher_id == teacher_id))
    one = _teachers.c.id == teacher_id
    with as_all_tenants(connection):  # another tenant may have it
        if connection.execute(select(left)).scalar_one():
            connection.execute(update(_teachers).where(one).values(inspection=_NOTHING))  # perhaps this tenant's
        else:
            connection.execute(delete(_teachers).where(one))


def has_bytes(tenant: str | None) -> ColumnElement[bool]:
    """The bytes of a row of `teachers` are a tenant's; with None: are kept, for whomever it may be.

    An older service puts teachers in that no tenant has, and jobs for whatever teacher there is.
    """
    held = exists().where(_held.c.teacher_id == _teachers.c.id)
    if tenant is not None:
        return held.where(_held.c.tenant == tenant, is_live())
    used = exists().where(tables.jobs.c.teacher_id == _teachers.c.id, tables.jobs.c.state.not_in(TERMINAL))
    return or_(held.where(is_live()), ~held, used)


def keep_depth(transaction: Transaction, job_id: str, found: dict[str, Any]) -> None:
    """Store the verification report of a job's teacher in the inspection that its tenant sees.

    Nothing happens if the job or the teacher has been deleted.
    """
    of_job = select(tables.jobs.c.tenant, tables.jobs.c.teacher_id).where(tables.jobs.c.id == job_id).subquery()
    holding = (_held.c.tenant == of_job.c.tenant, _held.c.teacher_id == of_job.c.teacher_id, is_live())
    connection = transaction.connection
    row = connection.execute(select(_held).join(of_job, and_(*holding)).with_for_update(of=_held)).one_or_none()
    if row is not None:
        kept = json_text({**json.loads(row.inspection), DEPTH: found})
        _change(connection, row.tenant, row.teacher_id, {"inspection": kept})


def adopt(transaction: Transaction) -> int:
    """Teachers that a service without tenants has put in are the default tenant's; how many there were."""
    nobodys = ~exists().where(_held.c.teacher_id == _teachers.c.id)
    columns = (_teachers.c.id, _teachers.c.inspection, _teachers.c.created_at)
    found = select(literal(DEFAULT_TENANT), *columns).where(nobodys)
    statement = insert(_held).from_select(["tenant", "teacher_id", "inspection", "created_at"], found)
    return len(transaction.connection.execute(statement.returning(_held.c.teacher_id)).all())


def _holding(tenant: str, teacher_id: str) -> list[ColumnElement[bool]]:
    return [_held.c.tenant == tenant, _held.c.teacher_id == teacher_id]


def _change(connection: Connection, tenant: str, teacher_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(_held).where(*_holding(tenant, teacher_id)).values(values))
