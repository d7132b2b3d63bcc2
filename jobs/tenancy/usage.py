"""Device-seconds: how long a tenant's jobs have run since the day began (UTC), also those that failed.

The transaction that ends an attempt charges it to the tenant, so the deletion of the job gives nothing back. A running
attempt counts from its claim. An attempt whose worker was lost counts until its last heartbeat.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, case, func, literal, select

from jobs.db import tables
from jobs.db.database import Transaction, dialect_insert
from jobs.db.db_time import UtcTime, elapsed_seconds, now, today
from jobs.models import JobState

_usage = tables.usage


def charge(transaction: Transaction, row: Row[Any], until: datetime | None = None) -> None:
    """Charge the attempt of a locked row of a running job, from its claim to `until` (default: now)."""
    end = now() if until is None else literal(until, UtcTime())
    statement = dialect_insert(transaction.connection, _usage).values(
        tenant=row.tenant, day=today(), device_seconds=_seconds_today(literal(row.claimed_at, UtcTime()), end)
    )
    new = statement.excluded
    known = case((_usage.c.day == new.day, _usage.c.device_seconds), else_=0.0)
    statement = statement.on_conflict_do_update(
        index_elements=[_usage.c.tenant], set_={"day": new.day, "device_seconds": known + new.device_seconds}
    )
    transaction.connection.execute(statement)


def device_seconds(connection: Connection, tenant: str) -> float:
    """Return the device-seconds that a tenant has used today."""
    job = tables.jobs
    ended = select(_usage.c.device_seconds).where(_usage.c.tenant == tenant, is_of_today())
    running = select(running_seconds(job)).where(job.c.tenant == tenant, job.c.state == JobState.RUNNING)
    found = select(func.coalesce(ended.scalar_subquery(), 0.0) + func.coalesce(running.scalar_subquery(), 0.0))
    return float(connection.execute(found).scalar_one())


def is_of_today() -> ColumnElement[bool]:
    """Return the condition that a row of usage is of the current day (UTC)."""
    return _usage.c.day == today()


def running_seconds(job: FromClause) -> ColumnElement[float]:
    """Return the sum of today's device-seconds of the running jobs."""
    return func.sum(_seconds_today(job.c.claimed_at, now()))


def _seconds_today(since: ColumnElement[Any], until: ColumnElement[Any]) -> ColumnElement[float]:
    return elapsed_seconds(until, case((since < today(), today()), else_=since))
