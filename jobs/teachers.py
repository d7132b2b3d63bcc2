"""Teachers of tenants: the SQL behind `Belongings.put_teacher` and `get_teacher`.

The bytes of a teacher are kept once, under their digest, whoever has uploaded them. What a tenant sees of it is its
own: when it came, and what was found under what this tenant said. Knowing a digest is not having the teacher.
"""

import json
import re
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, exists, insert, literal, select, update

from jobs import tables
from jobs.callers import DEFAULT_TENANT
from jobs.clock import now
from jobs.database import Transaction, dialect_insert
from jobs.errors import TeacherNotFound
from jobs.rows import json_text, teacher_from_row
from jobs.schemas import DEPTH, TeacherRef

_SHA256 = re.compile(r"[0-9a-f]{64}")

_teachers, _held = tables.teachers, tables.tenant_teachers

_ONE_TEACHER: Select[Any] = (
    select(_teachers.c.id, _teachers.c.bytes, _teachers.c.format, _held.c.inspection, _held.c.created_at)
    .join(_held, _held.c.teacher_id == _teachers.c.id)
    .where(_held.c.tenant == bindparam("tenant"), _teachers.c.id == bindparam("id"))
)


def teacher_with_id(connection: Connection, tenant: str, teacher_id: str) -> TeacherRef:
    """One teacher of a tenant; TeacherNotFound."""
    if not _SHA256.fullmatch(teacher_id):
        raise TeacherNotFound(teacher_id)
    row = connection.execute(_ONE_TEACHER, {"tenant": tenant, "id": teacher_id}).one_or_none()
    if row is None:
        raise TeacherNotFound(teacher_id)
    return teacher_from_row(row)


def put(transaction: Transaction, tenant: str, ref: TeacherRef) -> tuple[TeacherRef, bool]:
    """Note that a tenant has a teacher → what is kept, with database time, and whether it is new to this tenant."""
    connection = transaction.connection
    told = {"inspection": json_text(ref.inspection), "created_at": now()}
    kept = {"id": ref.id, "bytes": ref.bytes, "format": ref.format, **told}
    connection.execute(dialect_insert(connection, _teachers).values(kept).on_conflict_do_nothing())
    holds = dialect_insert(connection, _held).values(tenant=tenant, teacher_id=ref.id, **told)
    new = connection.execute(holds.on_conflict_do_nothing().returning(_held.c.tenant)).first() is not None
    return teacher_with_id(connection, tenant, ref.id), new


def keep_depth(connection: Connection, job_id: str, found: dict[str, Any]) -> None:
    """Put what running a job's teacher showed beside what its tenant was told of it."""
    of_job = select(tables.jobs.c.tenant, tables.jobs.c.teacher_id).where(tables.jobs.c.id == job_id).subquery()
    holding = (_held.c.tenant == of_job.c.tenant, _held.c.teacher_id == of_job.c.teacher_id)
    row = connection.execute(select(_held).join(of_job, and_(*holding)).with_for_update(of=_held)).one_or_none()
    if row is not None:
        kept = json_text({**json.loads(row.inspection), DEPTH: found})
        held = (_held.c.tenant == row.tenant, _held.c.teacher_id == row.teacher_id)
        connection.execute(update(_held).where(*held).values(inspection=kept))


def adopt(transaction: Transaction) -> int:
    """Teachers that a service without tenants has put in are the default tenant's; how many there were."""
    nobodys = ~exists().where(_held.c.teacher_id == _teachers.c.id)
    columns = (_teachers.c.id, _teachers.c.inspection, _teachers.c.created_at)
    found = select(literal(DEFAULT_TENANT), *columns).where(nobodys)
    statement = insert(_held).from_select(["tenant", "teacher_id", "inspection", "created_at"], found)
    return len(transaction.connection.execute(statement.returning(_held.c.teacher_id)).all())
