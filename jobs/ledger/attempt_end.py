"""The end of an attempt: how a running job ends, fails or returns to the queue, and which claim owns a job."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, literal, select

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import UtcTime, elapsed_seconds, now
from jobs.db.mapping import EventData, change, event_from_row
from jobs.ledger.context import LedgerLimits
from jobs.metrics import STALE_WRITES
from jobs.models import JobError, JobState
from jobs.tenancy.usage import charge

LEASE_EXPIRED = "lease-expired"
"""Reason of a release by a sweep: the worker was lost."""

UNCHARGED_CAP = 50
"""The number of uncharged releases of a job that do not count the attempt. Later ones count it, so that no job loops
for ever."""

_jobs = tables.jobs


def end_attempt(
    transaction: Transaction,
    row: Row[Any],
    values: dict[str, Any],
    events: Sequence[EventData] = (),
    *,
    until: datetime | None = None,
) -> Row[Any] | None:
    """End the attempt of a locked running row, and charge its tenant. None means that another claim has the job.

    `until`: the end of the attempt, if that is not now.
    """
    spent = elapsed_seconds(now() if until is None else literal(until, UtcTime()), _jobs.c.claimed_at)
    left = {
        "owner": None,
        "lease_until": None,
        "claimed_at": None,
        "pause_requested_at": None,
        "message": None,
        "eta_seconds": None,
        "eta_at": None,
        "running_seconds": _jobs.c.running_seconds + spent,
    }
    changed = change(transaction, owned_by(row.id, row.fence), left | values, events)
    if changed is not None:
        charge(transaction, row, until)
    return changed


def silent_seconds(connection: Connection, row: Row[Any]) -> float | None:
    """Seconds since the last heartbeat of the attempt before, if the worker of that attempt was lost; else None."""
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
    """Return the conditions that the claim with this fencing token still owns the job.

    They guard every write of a worker.
    """
    jobs = tables.jobs
    return [jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.fence == fence]


def lock_owned(transaction: Transaction, job_id: str, fence: int, kind: str) -> Row[Any] | None:
    """Lock the row of a job that this claim owns.

    None, and a stale write of this kind is counted, if another claim has the job.
    """
    owned = select(_jobs).where(*owned_by(job_id, fence)).with_for_update()
    row = transaction.connection.execute(owned).one_or_none()
    if row is None:
        count_stale_write(kind)
    return row


def count_stale_write(kind: str) -> None:
    """Count a write that was refused because another claim has the job."""
    STALE_WRITES.labels(kind).inc()


def give_back(
    transaction: Transaction,
    limits: LedgerLimits,
    row: Row[Any],
    *,
    reason: str,
    charged: bool,
    delay_seconds: float,
    until: datetime | None = None,
) -> JobState:
    """Put the job of a locked running row back into the queue, and return its new state.

    A requested pause or cancel is carried out instead. The job fails if it has used up its attempts or crashes.
    """
    if row.cancel_requested_at is not None:
        end_cancelled(transaction, row, until)
        return JobState.CANCELLED
    returned = not charged and row.uncharged_releases < UNCHARGED_CAP
    counts = {
        "attempt": row.attempt - (1 if returned else 0),
        "crash_streak": row.crash_streak + (1 if charged else 0),
        "uncharged_releases": row.uncharged_releases + (0 if charged else 1),
    }
    error = _limit_error(counts, reason, limits)
    if error is not None:
        end_failed(transaction, row, error, until, counts)
        return JobState.FAILED
    values = counts | {"state": JobState.QUEUED, "stage": "queued", "message": None}
    values |= {"not_before": now(delay_seconds), "ring_at": now(delay_seconds), "rings": 0}
    data = {"reason": reason, "charged": not returned, "attempt": row.attempt, "delay_seconds": delay_seconds}
    history: list[EventData] = [("released", data)]
    if row.pause_requested_at is not None:
        values |= paused_values()
        history.append(("paused", {}))
    end_attempt(transaction, row, values, history, until=until)
    return JobState.QUEUED if row.pause_requested_at is None else JobState.PAUSED


def paused_values() -> dict[str, Any]:
    """Return the columns of a paused job."""
    return {"state": JobState.PAUSED, "stage": "paused", "message": None, "pause_requested_at": None}


def _limit_error(counts: dict[str, int], reason: str, limits: LedgerLimits) -> JobError | None:
    """Return the error of a job that has used up its attempts or its crashes; None for any other job."""
    crashes, attempts = counts["crash_streak"], counts["attempt"]
    if crashes >= limits.max_crashes:
        detail = f"the runner died {crashes} times without getting any further (last: {reason})"
        hint = "It would die again. Look at memory and at the teacher; a smaller student or batch may help."
        return JobError(code="poison", detail=detail, hint=hint)
    if attempts >= limits.max_attempts:
        detail = f"the worker was lost in {attempts} attempts (last: {reason})"
        return JobError(code="worker-lost", detail=detail, hint="Submit the job again when the workers are steady.")
    return None


def end_failed(
    transaction: Transaction,
    row: Row[Any],
    error: JobError,
    until: datetime | None = None,
    counts: dict[str, int] | None = None,
) -> Row[Any] | None:
    """End the attempt of a locked running row, and fail its job. The error names the stage and the attempt."""
    stage = error.stage or (row.stage if row.stage != "queued" else None)
    complete = error.model_copy(update={"stage": stage, "attempt": error.attempt or row.attempt})
    values = {"state": JobState.FAILED, "finished_at": now(), "error": complete.model_dump_json(), **(counts or {})}
    return end_attempt(transaction, row, values, [("failed", complete.model_dump())], until=until)


def end_cancelled(transaction: Transaction, row: Row[Any], until: datetime | None = None) -> Row[Any] | None:
    """End the attempt of a locked running row, and cancel its job."""
    values = {"state": JobState.CANCELLED, "finished_at": now()}
    return end_attempt(transaction, row, values, [("cancelled", {})], until=until)
