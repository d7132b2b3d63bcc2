"""The sweep: takes back the jobs of dead workers, and finds the queued jobs about which to notify workers."""

import logging
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, update

from jobs.db import tables
from jobs.db.database import Database, Transaction
from jobs.db.db_time import now
from jobs.devices import DeviceClass
from jobs.ledger import scheduling
from jobs.ledger.attempt_end import LEASE_EXPIRED, give_back
from jobs.ledger.context import LedgerContext, LedgerLimits
from jobs.metrics import LEASES_EXPIRED, OUTCOMES
from jobs.models import JobState
from jobs.quota_limits import Quotas

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 300.0
MAX_NOTIFICATION_PAUSE_SECONDS = 30.0
MAX_NOTIFICATIONS = 20  # of each device class in one sweep: a message only says "look at the table"
BATCH = 100  # expired leases in one transaction

_jobs = tables.jobs


@dataclass(slots=True)
class Sweep:
    """The ids of the jobs that a sweep found."""

    expired: list[str] = field(default_factory=list)  # these are queued again
    failed: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    notify: dict[str, DeviceClass] = field(default_factory=dict)  # jobs about which to notify workers now
    attempts: dict[str, int] = field(default_factory=dict)  # attempts of the jobs whose lease expired


def sweep(database: Database, context: LedgerContext) -> Sweep:
    """Release the jobs of dead workers, and name the queued jobs about which to notify workers.

    Any number of processes may sweep at the same time. A sweep with nothing to do takes no lock.
    """
    if not database.read(_has_work):
        return Sweep()
    found = database.write(lambda transaction: _sweep(transaction, context.limits))
    _log_expired(found)
    return found


def _log_expired(found: Sweep) -> None:
    """Count and log every lease that expired."""
    for outcome in OUTCOMES:
        LEASES_EXPIRED.labels(outcome).inc(len(getattr(found, outcome)))
        for job_id in getattr(found, outcome):
            now = "queued again" if outcome == "expired" else outcome
            log.warning("a worker was lost", extra={"job_id": job_id, "attempt": found.attempts[job_id], "now": now})


def _sweep(transaction: Transaction, limits: LedgerLimits) -> Sweep:
    found = Sweep()
    statement = select(_jobs).where(_expired()).order_by(_jobs.c.number).limit(BATCH).with_for_update(skip_locked=True)
    expired = transaction.connection.execute(statement).all()
    for row in sorted(expired, key=lambda row: str(row.tenant)):  # two sweeps charge tenants in the same order
        delay_seconds = min(limits.backoff_seconds * 2.0**row.crash_streak, MAX_BACKOFF_SECONDS)
        state = give_back(
            transaction,
            limits,
            row,
            reason=LEASE_EXPIRED,
            charged=True,
            delay_seconds=delay_seconds,
            until=row.heartbeat_at,
        )
        lists = {JobState.QUEUED: found.expired, JobState.FAILED: found.failed, JobState.CANCELLED: found.cancelled}
        lists |= {JobState.PAUSED: found.paused}
        lists[state].append(row.id)
        found.attempts[row.id] = row.attempt
    found.notify = _take_notifications(transaction.connection, limits.default_quotas)
    return found


def _has_work(connection: Connection) -> bool:
    """True if a sweep would write something."""
    return bool(
        connection.execute(select(or_(exists().where(_expired()), exists().where(_notification_due())))).scalar()
    )


def _expired() -> ColumnElement[bool]:
    """Return the condition that a running job's lease has ended."""
    return and_(_jobs.c.state == JobState.RUNNING, _jobs.c.lease_until < now())


def _notification_due() -> ColumnElement[bool]:
    """Return the condition that workers should be notified about a queued job now."""
    return and_(_jobs.c.state == JobState.QUEUED, _jobs.c.not_before <= now(), _jobs.c.ring_at <= now())


def _take_notifications(connection: Connection, defaults: Quotas) -> dict[str, DeviceClass]:
    """Take the due jobs of each class in claim order. A job that stays queued is due again after 2, 4, 8 … 30 s.

    Without this pause every sweep of every process would send a message for every queued job, and the broker would
    fill up while all slots are busy.
    """
    statements = [
        scheduling.due_for_notification(connection.dialect.name, device_class, MAX_NOTIFICATIONS, defaults)
        for device_class in DeviceClass
    ]
    rows = [row for statement in statements for row in connection.execute(statement)]
    for row in rows:
        pause_seconds = min(2.0 * 2.0 ** min(row.rings, 10), MAX_NOTIFICATION_PAUSE_SECONDS)
        guard = [_jobs.c.number == row.number, _jobs.c.state == JobState.QUEUED, _jobs.c.rings == row.rings]
        connection.execute(update(_jobs).where(*guard).values(rings=row.rings + 1, ring_at=now(pause_seconds)))
    return {row.id: DeviceClass(row.device_class) for row in rows}
