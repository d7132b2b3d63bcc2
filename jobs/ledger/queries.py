"""Queries: find, list, count and insert jobs over an open connection.

`tenant` restricts a query to the jobs of one tenant; None means the jobs of all tenants. A job of another tenant counts
as absent. A text that cannot be the id of a job is refused without a query, because the database would refuse some of
these texts with an error.
"""

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, exists, func, insert, or_, select

from dfkd_core.notice import Notice
from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now
from jobs.db.mapping import ESTIMATE, WARNINGS, append_events, event_from_row, jobs_from_rows, read_jobs, select_jobs
from jobs.db.row_security import ALL_TENANTS, set_tenant, tenant_of
from jobs.errors import BadCursor, JobNotFound
from jobs.identity import Caller
from jobs.ledger import scheduling
from jobs.ledger.lineage import Origin, inherited
from jobs.models import ClassEstimate, Event, Job, JobPage, JobSpec, JobState, JobWithPosition
from jobs.tenancy import teachers

JobKey = tuple[str | None, str]
"""The tenant and the id of a job; the tenant None stands for every tenant."""

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,36}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_CURSOR = re.compile(r"n([0-9]{1,18})")

# Statements are built once, because building one takes longer than running it.
_ONE_JOB = select_jobs().where(tables.jobs.c.id == bindparam("id"))
_JOB_OF_TENANT = _ONE_JOB.where(tables.jobs.c.tenant == bindparam("tenant"))
_SEVERAL_JOBS = select_jobs().where(tables.jobs.c.id.in_(bindparam("ids", expanding=True)))
_SEVERAL_OF_TENANT = _SEVERAL_JOBS.where(tables.jobs.c.tenant == bindparam("tenant"))


def job_with_id(connection: Connection, tenant: str | None, job_id: str) -> Job:
    """Return one job.

    Raises:
        JobNotFound: The job does not exist.
    """
    wanted = {"id": _plausible(job_id)}
    if tenant is None:
        found = read_jobs(connection, _ONE_JOB, wanted)
    else:
        found = read_jobs(connection, _JOB_OF_TENANT, wanted | {"tenant": tenant})
    if not found:
        raise JobNotFound(job_id)
    return found[0]


def jobs_with_positions(connection: Connection, wanted: Collection[JobKey]) -> dict[JobKey, JobWithPosition]:
    """Jobs by tenant and id, with their places in the queue. Jobs that do not exist are left out.

    Each tenant takes one query, in which PostgreSQL shows only the rows of this tenant. After these queries the
    connection shows the rows of all tenants.
    """
    ids: dict[str | None, list[str]] = {}
    for tenant, job_id in wanted:
        ids.setdefault(tenant, []).append(job_id)
    found: dict[JobKey, tuple[Row[Any], Job]] = {}
    for tenant in sorted(ids, key=lambda tenant: tenant is not None):  # None first: it sees what the connection shows
        if tenant is not None:
            set_tenant(connection, tenant)
        found |= {(tenant, job.id): (row, job) for row, job in _several(connection, tenant, ids[tenant])}
    if any(job.state is JobState.QUEUED for _, job in found.values()):
        set_tenant(connection, ALL_TENANTS)  # a position counts the jobs of other tenants; only the number leaves
    return {
        key: JobWithPosition(job, scheduling.place(connection, row) if job.state is JobState.QUEUED else None)
        for key, (row, job) in found.items()
    }


def _several(connection: Connection, tenant: str | None, job_ids: Collection[str]) -> Iterable[tuple[Row[Any], Job]]:
    values: dict[str, Any] = {"ids": [job_id for job_id in job_ids if _JOB_ID.fullmatch(job_id)]}
    statement = _SEVERAL_JOBS if tenant is None else _SEVERAL_OF_TENANT
    rows = connection.execute(statement, values if tenant is None else values | {"tenant": tenant}).all()
    return zip(rows, jobs_from_rows(connection, rows), strict=True)


def job_with_position(connection: Connection, tenant: str | None, job_id: str) -> JobWithPosition:
    """Return one job with its place in the queue.

    Raises:
        JobNotFound: The job does not exist.
    """
    tenant_before = tenant_of(connection)
    found = jobs_with_positions(connection, [(tenant, job_id)])
    set_tenant(connection, tenant_before)
    if (tenant, job_id) not in found:
        raise JobNotFound(job_id)
    return found[tenant, job_id]


def number_of(connection: Connection, tenant: str | None, job_id: str) -> int:
    """Return the number of a job.

    Raises:
        JobNotFound: The job does not exist.
    """
    return int(_row(connection, select(tables.jobs.c.number), tenant, job_id).number)


def teacher_id_of(connection: Connection, tenant: str | None, job_id: str) -> str:
    """Return the id of a job's teacher.

    Raises:
        JobNotFound: The job does not exist.
    """
    return str(_row(connection, select(tables.jobs.c.teacher_id), tenant, job_id).teacher_id)


def locked_row(connection: Connection, tenant: str | None, job_id: str) -> Row[Any]:
    """Return a job's row, locked until the transaction ends.

    Raises:
        JobNotFound: The job does not exist.
    """
    return _row(connection, select(tables.jobs).with_for_update(), tenant, job_id)


def _row(connection: Connection, statement: Select[Any], tenant: str | None, job_id: str) -> Row[Any]:
    one = statement.where(tables.jobs.c.id == _plausible(job_id), *of_tenant(tenant))
    row = connection.execute(one).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return row


def of_tenant(tenant: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions that a job is of this tenant; None gives no condition."""
    return [] if tenant is None else [tables.jobs.c.tenant == tenant]


def _plausible(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound(job_id)
    return job_id


def insert_job(
    transaction: Transaction,
    job_id: str,
    spec: JobSpec,
    teacher_id: str,
    warnings: Sequence[Notice],
    *,
    caller: Caller,
    traceparent: str | None = None,
    origin: Origin | None = None,
    estimate: Sequence[ClassEstimate] | None = None,
) -> None:
    """Insert a job's row, its labels and one event.

    Raises:
        TeacherNotFound: The tenant has no teacher with this id.
        JobNotFound: The job of the origin does not exist.
        InvalidTransition: The job of the origin has not ended.
        CheckpointExpired: The job of the origin has no checkpoint from which to continue.
    """
    connection = transaction.connection
    teachers.use(connection, caller.tenant, teacher_id)
    values = _new_row(job_id, spec, teacher_id, warnings)
    values |= {"tenant": caller.tenant, "priority": caller.priority, "traceparent": traceparent}
    values |= _estimate_columns(estimate)
    if origin is not None:
        values |= inherited(locked_row(connection, caller.tenant, origin.job_id), origin)
    row = connection.execute(insert(tables.jobs).values(values).returning(*tables.jobs.c)).one()
    if spec.labels:
        lines = [{"job_number": row.number, "key": key, "value": value} for key, value in spec.labels.items()]
        connection.execute(insert(tables.labels), lines)
    append_events(transaction, row, [("created", {})])


def _estimate_columns(estimate: Sequence[ClassEstimate] | None) -> dict[str, Any]:
    """Return the columns of an estimate. Memory is the largest of a device class: a worker compares its own with it."""
    if not estimate:
        return {}
    needed: dict[str, int] = {}
    for entry in estimate:
        column = "cpu_memory_bytes" if entry.worker_class.startswith("cpu-") else "gpu_memory_bytes"
        needed[column] = max(needed.get(column, 0), entry.memory_bytes)
    return {"estimate": ESTIMATE.dump_json(list(estimate)).decode(), **needed}


def _new_row(job_id: str, spec: JobSpec, teacher_id: str, warnings: Sequence[Notice]) -> dict[str, Any]:
    counters = ("fraction", "step", "total_steps", "attempt", "crash_streak", "uncharged_releases", "fence", "rings")
    return dict.fromkeys((*counters, "running_seconds"), 0) | {
        "id": job_id,
        "state": JobState.QUEUED,
        "teacher_id": teacher_id,
        "spec": spec.text(),
        "spec_version": spec.version,
        "device_class": spec.device_class,
        "warnings": WARNINGS.dump_json(list(warnings)).decode(),
        "stage": "queued",
        "revision": 1,
        "last_seq": 1,
        "created_at": now(),
        "updated_at": now(),
        "not_before": now(),
        "ring_at": now(),
    }


def page(  # noqa: PLR0917 - as a method it has four
    connection: Connection,
    tenant: str | None,
    limit: int,
    cursor: str | None = None,
    states: Sequence[JobState] | None = None,
    labels: Mapping[str, str] | None = None,
) -> JobPage:
    """Return one page of jobs, newest first, after the job that the cursor names.

    Jobs that arrive between two pages neither shift nor repeat others.

    Raises:
        BadCursor: The cursor was not made by this service.
    """
    statement = _filtered(states, labels).where(*of_tenant(tenant))
    if cursor is not None:
        statement = statement.where(tables.jobs.c.number < _number_from_cursor(cursor))
    found = read_jobs(connection, statement.order_by(tables.jobs.c.number.desc()).limit(limit + 1))
    if len(found) <= limit:
        return JobPage(jobs=found, next_cursor=None)
    last = number_of(connection, tenant, found[limit - 1].id)
    return JobPage(jobs=found[:limit], next_cursor=_cursor_from_number(last))


def events(
    connection: Connection, tenant: str | None, job_id: str, after: int = 0, limit: int = 100
) -> Sequence[Event]:
    """Up to `limit` events of a job whose number is above `after`, oldest first.

    Raises:
        JobNotFound: The job does not exist.
    """
    table = tables.events
    number = number_of(connection, tenant, job_id)
    lines = select(table).where(table.c.job_number == number, table.c.seq > after).order_by(table.c.seq)
    return [event_from_row(row, job_id) for row in connection.execute(lines.limit(limit))]


def _filtered(states: Sequence[JobState] | None, labels: Mapping[str, str] | None) -> Select[Any]:
    """Return the jobs in one of `states` that have all of `labels`."""
    statement = select_jobs()
    if states is not None:
        statement = statement.where(tables.jobs.c.state.in_(states))
    for key, value in (labels or {}).items():
        statement = statement.where(tables.jobs.c.number.in_(_numbers_with_label(key, value)))
    return statement


def _numbers_with_label(key: str, value: str) -> Select[Any]:
    table = tables.labels
    numbers = select(table.c.job_number)
    if not (_LABEL.fullmatch(key) and _LABEL.fullmatch(value)):
        return numbers.where(table.c.job_number.is_(None))  # no job can have this label
    return numbers.where(table.c.key == key, table.c.value == value)


def _cursor_from_number(number: int) -> str:
    return base64.urlsafe_b64encode(f"n{number}".encode()).decode().rstrip("=")


def _number_from_cursor(cursor: str) -> int:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = _CURSOR.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii"))
    except (UnicodeError, binascii.Error) as error:
        raise BadCursor from error
    if found is None:
        raise BadCursor
    return int(found[1])


def is_referenced(connection: Connection, sha256: str, tenant: str | None = None) -> bool:
    """True if a teacher, a published file or a checkpoint has this digest, of one tenant or (None) of any."""
    jobs, files = tables.jobs, tables.artifacts
    of_its_tenant = of_tenant(tenant)
    anywhere = or_(
        exists().where(tables.teachers.c.id == sha256, teachers.has_bytes(tenant)),
        exists().where(files.c.sha256 == sha256, files.c.job_number == jobs.c.number, *of_its_tenant),
        exists().where(jobs.c.checkpoint_sha256 == sha256, *of_its_tenant),
        exists().where(jobs.c.previous_checkpoint_sha256 == sha256, *of_its_tenant),
    )
    return bool(connection.execute(select(anywhere)).scalar_one())


def count_by_state(connection: Connection) -> dict[JobState, int]:
    """Return the number of jobs in each state; 0 for a state without jobs."""
    counted = select(tables.jobs.c.state, func.count()).group_by(tables.jobs.c.state)
    found = {JobState(state): count for state, count in connection.execute(counted).all()}
    return {state: found.get(state, 0) for state in JobState}
