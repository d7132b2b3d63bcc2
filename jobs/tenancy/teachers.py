"""Teachers of tenants: which tenant has which teacher, and until when.

The bytes of a teacher are stored once under their digest, even if several tenants upload them. Each tenant has its own
row with the time of its upload and the result of the inspection for the spec that this tenant sent. A tenant that only
knows a digest does not have the teacher. The lifetime of a tenant's row is one of these:

own      the teacher was uploaded with POST /teachers; the tenant has it until it is deleted with DELETE /teachers
jobs     the teacher was sent with a job; the tenant has it until the last of its jobs that use it is deleted
deleted  the tenant no longer has it; the row stays until the last finished job that refers to it is deleted

`retention` deletes a teacher that the tenant has not used for the retention period. An upload uses a teacher, and so
does a job until it has ended. `used_at` is the last use that no row of a job shows.

Code that changes which tenants have a teacher, or that relies on it, locks the teacher's row before any row of a job.
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
from jobs.models import DEPTH, SAID, TERMINAL, TeacherRef

_NOTHING = "{}"

_teachers, _links = tables.teachers, tables.tenant_teachers


class Lifetime(StrEnum):
    """How long a tenant has a teacher. The module's docstring explains the values."""

    OWN = "own"
    JOBS = "jobs"
    DELETED = "deleted"


def is_live() -> ColumnElement[bool]:
    """Return the condition that the tenant of a row of `tenant_teachers` still has the teacher."""
    return _links.c.lifetime != Lifetime.DELETED


_ONE_TEACHER: Select[Any] = (
    select(
        _teachers.c.id,
        _teachers.c.bytes,
        _teachers.c.format,
        _links.c.inspection,
        _links.c.created_at,
    )
    .join(_links, _links.c.teacher_id == _teachers.c.id)
    .where(_links.c.tenant == bindparam("tenant"), _teachers.c.id == bindparam("id"), is_live())
)


def teacher_with_id(connection: Connection, tenant: str, teacher_id: str) -> TeacherRef:
    """Return one teacher of a tenant.

    Raises:
        TeacherNotFound: the tenant does not have this teacher.
    """
    if not is_digest(teacher_id):
        raise TeacherNotFound(teacher_id)
    row = connection.execute(_ONE_TEACHER, {"tenant": tenant, "id": teacher_id}).one_or_none()
    if row is None:
        raise TeacherNotFound(teacher_id)
    return teacher_from_row(row)


def put(transaction: Transaction, tenant: str, ref: TeacherRef, lifetime: Lifetime) -> tuple[TeacherRef, bool]:
    """Record that a tenant has a teacher, for the longer of the recorded lifetime and `lifetime`.

    An upload that says something of the teacher replaces what an earlier one said, with its inspection.

    Returns the teacher with database time, and True if the tenant did not have it before.
    """
    connection = transaction.connection
    from_tenant = {"inspection": json_text(ref.inspection), "created_at": now()}
    kept = {"id": ref.id, "bytes": ref.bytes, "format": ref.format, **from_tenant}
    there = dialect_insert(connection, _teachers).values(kept)
    locked = there.on_conflict_do_update(index_elements=[_teachers.c.id], set_={"format": ref.format}, where=false())
    with as_all_tenants(connection):  # another tenant may have uploaded it before
        connection.execute(locked)  # an existing row stays as it is, and the lock prevents its deletion
    values = {**from_tenant, "lifetime": lifetime, "used_at": now()}
    holds = dialect_insert(connection, _links).values(tenant=tenant, teacher_id=ref.id, **values)
    again = holds.on_conflict_do_update(
        index_elements=[_links.c.tenant, _links.c.teacher_id],
        set_=values,
        where=_links.c.lifetime == Lifetime.DELETED,
    )
    new = connection.execute(again.returning(_links.c.tenant)).first() is not None
    if not new:
        _change(connection, tenant, ref.id, {"used_at": now()})
    if not new and SAID in ref.inspection:
        _replace_inspection(connection, tenant, ref)
    if not new and lifetime is Lifetime.OWN:
        _change(connection, tenant, ref.id, {"lifetime": lifetime})
    return teacher_with_id(connection, tenant, ref.id), new


def _replace_inspection(connection: Connection, tenant: str, ref: TeacherRef) -> None:
    """Store the inspection of a teacher that a tenant has already; the verification report stays."""
    statement = select(_links.c.inspection).where(*_holding(tenant, ref.id)).with_for_update()
    before = json.loads(connection.execute(statement).scalar_one())
    depth = {DEPTH: before[DEPTH]} if DEPTH in before else {}
    _change(connection, tenant, ref.id, {"inspection": json_text({**ref.inspection, **depth})})


def use(connection: Connection, tenant: str, teacher_id: str) -> None:
    """Prevent the deletion of a tenant's teacher until the transaction ends.

    Raises:
        TeacherNotFound: the tenant does not have this teacher.
    """
    lock(connection, teacher_id, alone=False)
    teacher_with_id(connection, tenant, teacher_id)


def lock(connection: Connection, teacher_id: str, *, alone: bool = True) -> None:
    """Lock a teacher until the transaction ends: no tenant gets it or loses it; without `alone`, no tenant loses it."""
    if is_digest(teacher_id):
        row = select(_teachers.c.id).where(_teachers.c.id == teacher_id)
        connection.execute(row.with_for_update(read=not alone)).one_or_none()


def lifetime_of(connection: Connection, tenant: str, teacher_id: str) -> Lifetime | None:
    """Return the lifetime of a tenant's teacher; None if the tenant has no row for it."""
    found = connection.execute(select(_links.c.lifetime).where(*_holding(tenant, teacher_id))).scalar_one_or_none()
    return None if found is None else Lifetime(found)


def record_use(connection: Connection, tenant: str, teacher_id: str, until: datetime) -> None:
    """Record a tenant's use of a locked teacher that no row of a job shows."""
    connection.execute(update(_links).where(*_holding(tenant, teacher_id), last_use() < until).values(used_at=until))


def last_use() -> ColumnElement[datetime]:
    """Return the time of a tenant's last use of a teacher that no row of a job shows."""
    found: ColumnElement[datetime] = func.coalesce(_links.c.used_at, _links.c.created_at)
    return found


def remove_from_tenant(connection: Connection, tenant: str, teacher_id: str, *, has_jobs: bool) -> None:
    """Remove a locked teacher from a tenant. Delete the teacher if no tenant has it and no job refers to it.

    `has_jobs`: jobs of the tenant refer to the teacher, so the tenant's row stays, marked as deleted.
    """
    if has_jobs:
        _change(connection, tenant, teacher_id, {"lifetime": Lifetime.DELETED, "inspection": _NOTHING})
    else:
        connection.execute(delete(_links).where(*_holding(tenant, teacher_id)))
    left = or_(
        exists().where(_links.c.teacher_id == teacher_id),
        exists().where(tables.jobs.c.teacher_id == teacher_id),
    )
    one = _teachers.c.id == teacher_id
    with as_all_tenants(connection):  # another tenant may have it
        if connection.execute(select(left)).scalar_one():
            connection.execute(update(_teachers).where(one).values(inspection=_NOTHING))  # perhaps this tenant's
        else:
            connection.execute(delete(_teachers).where(one))


def has_bytes(tenant: str | None) -> ColumnElement[bool]:
    """Return the condition that a tenant has the bytes of a row of `teachers`; None: that the bytes are needed at all.

    A service of an older version inserts teachers that no tenant has, and jobs that use any teacher.
    """
    held = exists().where(_links.c.teacher_id == _teachers.c.id)
    if tenant is not None:
        return held.where(_links.c.tenant == tenant, is_live())
    used = exists().where(tables.jobs.c.teacher_id == _teachers.c.id, tables.jobs.c.state.not_in(TERMINAL))
    return or_(held.where(is_live()), ~held, used)


def keep_depth(transaction: Transaction, job_id: str, found: dict[str, Any]) -> None:
    """Store the verification report of a job's teacher in the inspection that its tenant sees.

    Nothing happens if the job or the teacher has been deleted.
    """
    of_job = select(tables.jobs.c.tenant, tables.jobs.c.teacher_id).where(tables.jobs.c.id == job_id).subquery()
    holding = (
        _links.c.tenant == of_job.c.tenant,
        _links.c.teacher_id == of_job.c.teacher_id,
        is_live(),
    )
    connection = transaction.connection
    row = connection.execute(select(_links).join(of_job, and_(*holding)).with_for_update(of=_links)).one_or_none()
    if row is not None:
        kept = json_text({**json.loads(row.inspection), DEPTH: found})
        _change(connection, row.tenant, row.teacher_id, {"inspection": kept})


def adopt(transaction: Transaction) -> int:
    """Give teachers that a service without tenants has stored to the default tenant; return their number."""
    without_tenant = ~exists().where(_links.c.teacher_id == _teachers.c.id)
    columns = (_teachers.c.id, _teachers.c.inspection, _teachers.c.created_at)
    found = select(literal(DEFAULT_TENANT), *columns).where(without_tenant)
    statement = insert(_links).from_select(["tenant", "teacher_id", "inspection", "created_at"], found)
    return len(transaction.connection.execute(statement.returning(_links.c.teacher_id)).all())


def _holding(tenant: str, teacher_id: str) -> list[ColumnElement[bool]]:
    return [_links.c.tenant == tenant, _links.c.teacher_id == teacher_id]


def _change(connection: Connection, tenant: str, teacher_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(_links).where(*_holding(tenant, teacher_id)).values(values))
