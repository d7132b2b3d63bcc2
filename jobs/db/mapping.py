"""Mapping between rows and models: how jobs are read and changed, and how their history is written."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, select, update

from dfkd_core.notice import Notice
from dfkd_core.spec.config import Budget
from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now
from jobs.models import (
    ArtifactRef,
    BestStudent,
    ClassEstimate,
    Event,
    Job,
    JobError,
    JobSpec,
    JobState,
    Progress,
    TeacherRef,
    UnreadableSpec,
    Worker,
)

EventData = tuple[str, dict[str, Any] | Callable[[Row[Any]], dict[str, Any]]]
"""Kind and data of an event. The data may be a function of the row as it is after the update."""

SPEC_CACHE_SIZE = 256  # clients poll a job many times, and its spec never changes

_OF_TENANT = ("inspection", "created_at")
WARNINGS = TypeAdapter(list[Notice])
ESTIMATE = TypeAdapter(list[ClassEstimate])
_DATA = TypeAdapter(dict[str, Any])


def json_text(value: Any) -> str:
    """Standard JSON: NaN and infinities become null."""
    return to_json(value, inf_nan_mode="null").decode()


def change(
    transaction: Transaction,
    guard: Sequence[ColumnElement[bool]],
    values: dict[str, Any],
    events: Sequence[EventData] = (),
) -> Row[Any] | None:
    """Change a job: one UPDATE with the guard as its condition, and the events. None if no row meets the guard.

    Every change of a job uses this function.
    """
    jobs = tables.jobs
    counted = {
        "revision": jobs.c.revision + 1,
        "updated_at": now(),
        "last_seq": jobs.c.last_seq + len(events),
    }
    statement = update(jobs).where(*guard).values({**counted, **values}).returning(*jobs.c)
    row = transaction.connection.execute(statement).one_or_none()
    if row is not None and events:
        append_events(transaction, row, events)
    return row


def append_events(transaction: Transaction, row: Row[Any], events: Sequence[EventData]) -> None:
    """Insert events of a job. The `last_seq` of its row counts them already."""
    first = row.last_seq - len(events) + 1
    lines = [
        {
            "job_number": row.number,
            "seq": first + offset,
            "kind": kind,
            "fence": row.fence,
            "data": json_text(data(row) if callable(data) else data),
            "write_id": transaction.write_id,
        }
        for offset, (kind, data) in enumerate(events)
    ]
    transaction.connection.execute(insert(tables.events).values(at=now()), lines)
    transaction.job_number = row.number


def select_jobs() -> Select[Any]:
    """Return a query for jobs with their teachers, as their tenants see them.

    The teachers' columns are called teacher__*.
    """
    jobs, teachers, held = tables.jobs, tables.teachers, tables.tenant_teachers
    own = [func.coalesce(held.c[name], teachers.c[name]).label(f"teacher__{name}") for name in _OF_TENANT]
    same = [column.label(f"teacher__{column.name}") for column in teachers.c if column.name not in _OF_TENANT]
    found = select(*jobs.c, *same, *own).join(teachers, teachers.c.id == jobs.c.teacher_id)
    return found.outerjoin(held, and_(held.c.tenant == jobs.c.tenant, held.c.teacher_id == teachers.c.id))


def read_jobs(connection: Connection, statement: Select[Any], values: dict[str, Any] | None = None) -> list[Job]:
    """Return the jobs that a statement made from `select_jobs` finds, each with its artifacts."""
    return jobs_from_rows(connection, connection.execute(statement, values).all())


def jobs_from_rows(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    """Return the jobs of rows of `select_jobs`, each with its artifacts."""
    finished = [row.number for row in rows if row.state == JobState.SUCCEEDED]
    files: dict[int, list[ArtifactRef]] = {}
    if finished:
        table = tables.artifacts
        kept = select(table).where(table.c.job_number.in_(finished)).order_by(table.c.name)
        for row in connection.execute(kept):
            ref = ArtifactRef(name=row.name, sha256=row.sha256, bytes=row.bytes, media_type=row.media_type)
            files.setdefault(row.job_number, []).append(ref)
    return [job_from_row(row, files.get(row.number, [])) for row in rows]


def job_from_row(row: Row[Any], files: list[ArtifactRef]) -> Job:
    """Return the job of one row of `select_jobs`."""
    return Job(
        id=row.id,
        state=JobState(row.state),
        spec=spec_from_text(row.spec),
        teacher=teacher_from_row(row, prefix="teacher__"),
        progress=_progress_from_row(row),
        best=BestStudent.model_validate_json(row.best) if row.best else None,
        attempt=row.attempt,
        fence=row.fence,
        threads=row.threads,
        cancel_requested=row.cancel_requested_at is not None,
        pause_requested=row.pause_requested_at is not None,
        warnings=WARNINGS.validate_json(row.warnings),
        error=JobError.model_validate_json(row.error) if row.error else None,
        artifacts=files,
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        claimed_at=row.claimed_at,
        heartbeat_at=row.heartbeat_at,
        running_seconds=row.running_seconds,
        traceparent=row.traceparent,
        device_class=row.device_class,
        retried_from=row.retried_from,
        continued_from=row.continued_from,
        continued_budget=Budget.model_validate_json(row.continued_budget) if row.continued_budget else None,
        estimate=ESTIMATE.validate_json(row.estimate) if row.estimate else None,
        eta_at=row.eta_at,
    )


@lru_cache(maxsize=SPEC_CACHE_SIZE)
def spec_from_text(text: str) -> JobSpec | UnreadableSpec:
    """Return a stored spec. A spec of another version that this one cannot read becomes an `UnreadableSpec`."""
    for kind in (JobSpec, UnreadableSpec):
        with suppress(ValidationError):
            return kind.model_validate_json(text)
    return UnreadableSpec({"text": text})  # not even a JSON object


def _progress_from_row(row: Row[Any]) -> Progress:
    return Progress(
        stage=row.stage,
        fraction=row.fraction,
        step=row.step,
        total_steps=row.total_steps,
        agreement=row.agreement,
        message=row.message,
        eta_seconds=row.eta_seconds,
    )


def teacher_from_row(row: Row[Any], prefix: str = "") -> TeacherRef:
    """Return the teacher in the columns that start with `prefix`."""
    values = row._mapping
    return TeacherRef(
        id=values[f"{prefix}id"],
        bytes=values[f"{prefix}bytes"],
        format=values[f"{prefix}format"],
        created_at=values[f"{prefix}created_at"],
        inspection=_DATA.validate_json(values[f"{prefix}inspection"]),
    )


def event_from_row(row: Row[Any], job_id: str) -> Event:
    """Return the event of a row."""
    return Event(
        seq=row.seq, job_id=job_id, kind=row.kind, fence=row.fence, at=row.at, data=_DATA.validate_json(row.data)
    )


def worker_from_row(row: Row[Any]) -> Worker:
    """Return the worker of a row."""
    return Worker(
        id=row.id,
        host=row.host,
        slots=row.slots,
        device=row.device,
        started_at=row.started_at,
        seen_at=row.seen_at,
        worker_class=row.worker_class,
    )
