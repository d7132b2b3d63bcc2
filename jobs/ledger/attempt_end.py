"""The end of an attempt: what a job loses when it leaves `running`, and which claim owns a job."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, literal, select

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import UtcTime, elapsed_seconds, now
from jobs.db.mapping import EventData, change, event_from_row
from jobs.models import JobState
from jobs.tenancy.usage import charge

LEASE_EXPIRED = "lease-expired"
"""Reason of a release by a sweep: the worker was lost."""


def end_attempt(
    transaction: Transaction,
    row: Row[Any],
    values: dict[str, Any],
    events: Sequence[EventData] = (),
    *,
    until: datetime | None = None,
) -> Row[Any] | None:
    """Change a locked row that runs into one that does not; its tenant is charged. None when fenced out.

    `until`: when the attempt really ended, where that is not now.
    """
    spent = elapsed_seconds(now() if until is None else literal(until, UtcTime()), tables.jobs.c.claimed_at)
    left = {
        "owner": None,
        "lease_until": None,
        "claimed_at": None,
        "pause_requested_at": None,
        "running_seconds": tables.jobs.c.running_seconds + spent,
    }
    changed = change(transaction, owned_by(row.id, row.fence), left | values, events)
    if changed is not None:
        charge(transaction, row, until)
    return changed


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


def owned_by(job_id: str, fence: int) -> list[ColumnElement[bool]]:
    """Conditions: the job still belongs to the claim with this fencing number. They guard every write of a worker."""
    jobs = tables.jobs
    return [jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.fence == fence]


def is_owner(connection: Connection, job_id: str, fence: int) -> bool:
    """Whether the claim with this fencing number still owns the job."""
    return connection.execute(select(tables.jobs.c.number).where(*owned_by(job_id, fence))).first() is not None
