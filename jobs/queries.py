"""The caller's side of the ledger: find, list, count, accept and forget jobs. Functions over an open connection.

An id that cannot be one is answered without asking the database, which would refuse some of them with an error.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, exists, func, insert, or_, select

from jobs import line, tables, teachers
from jobs.callers import EVERYBODY, Caller
from jobs.clock import now
from jobs.database import Transaction
from jobs.errors import BadCursor, JobNotFound, TeacherNotFound
from jobs.origins import Origin, inherited
from jobs.rows import WARNINGS, append_events, read_jobs, select_jobs, teacher_from_row
from jobs.schemas import Job, JobPage, JobSpec, JobState, JobWarning, TeacherRef

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,36}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_CURSOR = re.compile(r"n([0-9]{1,18})")

_ONE_JOB = select_jobs().where(tables.jobs.c.id == bindparam("id"))  # built once: building costs more than asking


def teacher_with_id(connection: Connection, teacher_id: str) -> TeacherRef:
    """One teacher; TeacherNotFound."""
    if not _SHA256.fullmatch(teacher_id):
        raise TeacherNotFound(teacher_id)
    known = tables.teachers.c.id == teacher_id
    row = connection.execute(select(tables.teachers).where(known, teachers.has_bytes())).one_or_none()
    if row is None:
        raise TeacherNotFound(teacher_id)
    return teacher_from_row(row)


def job_with_id(connection: Connection, job_id: str) -> Job:
    """One job; JobNotFound."""
    found = read_jobs(connection, _ONE_JOB, {"id": _plausible(job_id)})
    if not found:
        raise JobNotFound(job_id)
    return found[0]


def number_of(connection: Connection, job_id: str) -> int:
    """The number of a job; JobNotFound."""
    statement = select(tables.jobs.c.number).where(tables.jobs.c.id == _plausible(job_id))
    number: int | None = connection.execute(statement).scalar_one_or_none()
    if number is None:
        raise JobNotFound(job_id)
    return number


def locked_row(connection: Connection, job_id: str) -> Row[Any]:
    """A job's row, locked until the transaction ends; JobNotFound."""
    statement = select(tables.jobs).where(tables.jobs.c.id == _plausible(job_id)).with_for_update()
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return row


def _plausible(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound(job_id)
    return job_id


def insert_job(
    transaction: Transaction,
    job_id: str,
    spec: JobSpec,
    teacher_id: str,
    warnings: Sequence[JobWarning],
    *,
    caller: Caller = EVERYBODY,
    traceparent: str | None = None,
    origin: Origin | None = None,
) -> Job:
    """One row, its labels and one event; TeacherNotFound, and for a job with an origin as `origins.inherited`."""
    connection = transaction.connection
    values = _new_row(job_id, spec, teacher_id, warnings) | asdict(caller) | {"traceparent": traceparent}
    if origin is not None:  # its row before the teacher's: purges lock them in this order, too
        values |= inherited(locked_row(connection, origin.job_id), origin)
    teachers.shared_row(connection, teacher_id)
    row = connection.execute(insert(tables.jobs).values(values).returning(*tables.jobs.c)).one()
    if spec.labels:
        lines = [{"job_number": row.number, "key": key, "value": value} for key, value in spec.labels.items()]
        connection.execute(insert(tables.labels), lines)
    append_events(transaction, row, [("created", {})])
    return job_with_id(connection, job_id)


def _new_row(job_id: str, spec: JobSpec, teacher_id: str, warnings: Sequence[JobWarning]) -> dict[str, Any]:
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


def page(
    connection: Connection,
    limit: int,
    cursor: str | None,
    states: Sequence[JobState] | None,
    labels: Mapping[str, str] | None,
) -> JobPage:
    """Newest first, after the job that the cursor names; BadCursor."""
    statement = _filtered(states, labels)
    if cursor is not None:
        statement = statement.where(tables.jobs.c.number < _number_from_cursor(cursor))
    found = read_jobs(connection, statement.order_by(tables.jobs.c.number.desc()).limit(limit + 1))
    if len(found) <= limit:
        return JobPage(jobs=found, next_cursor=None)
    last = number_of(connection, found[limit - 1].id)
    return JobPage(jobs=found[:limit], next_cursor=_cursor_from_number(last))


def _filtered(states: Sequence[JobState] | None, labels: Mapping[str, str] | None) -> Select[Any]:
    """Jobs in one of `states` that carry every one of `labels`."""
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
        return numbers.where(table.c.job_number.is_(None))  # no job can carry it
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


def is_referenced(connection: Connection, sha256: str) -> bool:
    """Whether a teacher, a published file or a checkpoint is kept under this digest."""
    jobs = tables.jobs
    anywhere = or_(
        exists().where(tables.teachers.c.id == sha256, teachers.has_bytes()),
        exists().where(tables.artifacts.c.sha256 == sha256),
        exists().where(jobs.c.checkpoint_sha256 == sha256),
        exists().where(jobs.c.previous_checkpoint_sha256 == sha256),
    )
    return bool(connection.execute(select(anywhere)).scalar_one())


def count_by_state(connection: Connection) -> dict[JobState, int]:
    """How many jobs there are in each state, also where there is none."""
    counted = select(tables.jobs.c.state, func.count()).group_by(tables.jobs.c.state)
    found = {JobState(state): count for state, count in connection.execute(counted).all()}
    return {state: found.get(state, 0) for state in JobState}


def position(connection: Connection, job_id: str) -> int | None:
    """1 for the job that is claimed next; None unless it is queued; JobNotFound."""
    jobs = tables.jobs
    row = connection.execute(select(jobs).where(jobs.c.id == _plausible(job_id))).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    if row.state != JobState.QUEUED:
        return None
    return line.place(connection, row)
