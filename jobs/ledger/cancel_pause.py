"""Cancel, pause and resume: what callers request of a job.

A waiting job obeys at once. A running job obeys when its worker has stopped it; until then a pause is only a request,
which a resume withdraws and a cancel overrides. A paused job has no lease and no owner, and the attempt that was
stopped for the pause is not counted.
"""

from typing import Any

from sqlalchemy import Row

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now
from jobs.db.mapping import change
from jobs.ledger.attempt_end import paused_values
from jobs.models import JobState

_jobs = tables.jobs


def request_cancel(transaction: Transaction, row: Row[Any]) -> None:
    """Cancel the job of a locked row: a waiting job at once, a running job with the next heartbeat of its worker."""
    guard = [_jobs.c.number == row.number, _jobs.c.state == row.state, _jobs.c.cancel_requested_at.is_(None)]
    if row.state == JobState.RUNNING:
        change(transaction, guard, {"cancel_requested_at": now()}, [("cancel-requested", {})])
        return
    values = {"state": JobState.CANCELLED, "cancel_requested_at": now(), "finished_at": now()}
    change(transaction, guard, values, [("cancelled", {})])


def request_pause(transaction: Transaction, row: Row[Any]) -> None:
    """Pause the job of a locked row: a queued job at once, a running job with the next heartbeat of its worker."""
    guard = [_jobs.c.number == row.number, _jobs.c.state == row.state]
    if row.state == JobState.RUNNING and row.pause_requested_at is None:
        change(transaction, guard, {"pause_requested_at": now()}, [("pause-requested", {})])
    elif row.state == JobState.QUEUED:
        change(transaction, guard, paused_values(), [("paused", {})])


def request_resume(transaction: Transaction, row: Row[Any]) -> None:
    """Queue the job of a paused locked row again, or withdraw the pause of a running one."""
    guard = [_jobs.c.number == row.number, _jobs.c.state == row.state]
    if row.state == JobState.PAUSED:
        values = {"state": JobState.QUEUED, "stage": "queued", "not_before": now(), "ring_at": now(), "rings": 0}
        change(transaction, guard, values, [("resumed", {})])
    elif row.pause_requested_at is not None:
        change(transaction, guard, {"pause_requested_at": None}, [("resumed", {})])
