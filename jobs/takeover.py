"""Whose a job is, and how long it was without a worker before somebody took it over."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from jobs.db import tables
from jobs.db.db_time import elapsed_seconds, now
from jobs.db.mapping import event_from_row
from jobs.models import JobState

LEASE_EXPIRED = "lease-expired"
"""Reason of a release by a sweep: the worker was lost."""


def silent_seconds(connection: Connection, row: Row[Any]) -> float | None:
    """Seconds since the last heartbeat of the attempt before, where its worker was lost; None otherwise."""
    if row.fence == 0:
        return None
    jobs, events = tables.jobs, tables.events
    silence = elapsed_seconds(now(), jobs.c.heartbeat_at).label("silence")
    last = select(events, silence).join(jobs, jobs.c.number == events.c.job_number)
    last = last.where(events.c.job_number == row.number).order_by(events.c.seq.desc()).limit(1)
    found = connection.execute(last).one()
    event = event_from_row(found, row.id)
    lost = event.kind == "released" and event.data.get("reason") == LEASE_EXPIRED
    return float(found.silence) if lost else None


def held(job_id: str, fence: int) -> list[ColumnElement[bool]]:
    """The job still belongs to the claim with this fencing number: the guard of every write of a worker."""
    jobs = tables.jobs
    return [jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.fence == fence]


def holds(connection: Connection, job_id: str, fence: int) -> bool:
    """Whether that is so."""
    return connection.execute(select(tables.jobs.c.number).where(*held(job_id, fence))).first() is not None
