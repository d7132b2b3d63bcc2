"""Leases: how workers claim, renew, report on, end and release jobs.

Every function takes an open write transaction and changes a job by one UPDATE, which is guarded by the job's state and
fencing token. A worker with an old fencing token changes nothing, and the function returns None or False. A cancel
request wins over everything except a success that was committed before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, case, func, insert, or_, select

from dfkd_core.notice import Notice
from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now
from jobs.db.mapping import WARNINGS, EventData, change, json_text, read_jobs, select_jobs, spec_from_text
from jobs.devices import DeviceClass
from jobs.ledger import scheduling
from jobs.ledger.attempt_end import (
    count_stale_write,
    end_attempt,
    end_cancelled,
    end_failed,
    give_back,
    lock_owned,
    owned_by,
    paused_values,
    silent_seconds,
)
from jobs.ledger.context import LedgerContext
from jobs.models import ArtifactRef, BestStudent, Job, JobError, JobSpec, JobState, Progress
from jobs.tenancy import quotas

REFUSALS = 100  # unreadable jobs in one transaction

_jobs = tables.jobs


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed job. The claim lasts until its lease ends; every later write carries `fence`."""

    job: Job
    spec: JobSpec  # the job's, which this version can read
    fence: int
    checkpoint_sha256: str | None  # the runner resumes from this checkpoint
    previous_checkpoint_sha256: str | None  # or from this one if the last checkpoint is damaged
    checkpoint_step: int | None
    silent_seconds: float | None = None  # time since the last heartbeat, if the worker of the attempt before was lost


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer to a heartbeat."""

    cancel_requested: bool
    pause_requested: bool
    over_quota: bool = False  # the tenant has used all its device-seconds of the day


def claim(  # noqa: PLR0917 - workers call it with four
    transaction: Transaction,
    context: LedgerContext,
    owner: str,
    lease_seconds: float,
    threads: int,
    device_class: DeviceClass = DeviceClass.CPU,
    memory_bytes: int | None = None,
) -> Claim | None:
    """Claim the first due job that a worker of this class serves, for `lease_seconds`; None if there is none.

    `jobs.ledger.scheduling` defines the order. Earlier jobs whose spec this version cannot read fail, because no worker
    could run them and they would block the queue. Jobs of a higher spec version are left to newer workers, and jobs
    whose estimate exceeds `memory_bytes` to larger ones.

    Raises:
        ClaimRaceLost: Another claim has just taken the tenant's last permitted running job.
    """
    defaults = context.limits.default_quotas
    dialect = transaction.connection.dialect.name
    for _ in range(REFUSALS):
        next_job = scheduling.next_job(dialect, device_class, defaults, memory_bytes)
        row = transaction.connection.execute(next_job).one_or_none()
        if row is None:
            return None
        spec = spec_from_text(row.spec)
        if isinstance(spec, JobSpec):
            quotas.recheck_running_quota(transaction.connection, row.tenant, defaults)
            return _start(transaction, row, spec, owner=owner, lease_seconds=lease_seconds, threads=threads)
        _refuse(transaction, row)
    return None


def _start(
    transaction: Transaction, row: Row[Any], spec: JobSpec, *, owner: str, lease_seconds: float, threads: int
) -> Claim | None:
    values = {
        "state": JobState.RUNNING,
        "owner": owner,
        "fence": _jobs.c.fence + 1,
        "attempt": _jobs.c.attempt + 1,
        "lease_until": now(lease_seconds),
        "claimed_at": now(),
        "heartbeat_at": now(),
        "started_at": func.coalesce(_jobs.c.started_at, now()),
        "threads": func.coalesce(_jobs.c.threads, threads),
        "rings": 0,
    }
    silent = silent_seconds(transaction.connection, row)
    event: EventData = ("claimed", lambda row: {"attempt": row.attempt, "worker": owner})
    ours = change(transaction, [_jobs.c.number == row.number, _jobs.c.state == JobState.QUEUED], values, [event])
    if ours is None:
        return None
    (job,) = read_jobs(transaction.connection, select_jobs().where(_jobs.c.number == ours.number))
    checkpoints = (ours.checkpoint_sha256, ours.previous_checkpoint_sha256, ours.checkpoint_step)
    return Claim(job, spec, ours.fence, *checkpoints, silent_seconds=silent)


def _refuse(transaction: Transaction, row: Row[Any]) -> None:
    """Fail a queued job whose spec this version cannot read."""
    error = JobError(
        code="spec-unreadable",
        detail="the spec of this job was stored by another version and has options that this one does not know",
        hint="Submit the spec again: the answer names each field that has to change.",
        attempt=row.attempt,
    )
    values = {"state": JobState.FAILED, "finished_at": now(), "error": error.model_dump_json(), "message": None}
    guard = [_jobs.c.number == row.number, _jobs.c.state == JobState.QUEUED]
    change(transaction, guard, values, [("failed", error.model_dump())])


def heartbeat(
    transaction: Transaction, context: LedgerContext, job_id: str, fence: int, lease_seconds: float
) -> Lease | None:
    """Renew a lease. None means that another claim has the job: stop the runner now."""
    values = {"lease_until": now(lease_seconds), "heartbeat_at": now()}
    row = change(transaction, owned_by(job_id, fence), values)
    if row is None:
        count_stale_write("heartbeat")
        return None
    return Lease(
        cancel_requested=row.cancel_requested_at is not None,
        pause_requested=row.pause_requested_at is not None,
        over_quota=quotas.daily_quota_spent(transaction.connection, row.tenant, context.limits.default_quotas),
    )


def record(
    transaction: Transaction,
    job_id: str,
    fence: int,
    *,
    progress: Progress | None = None,
    best: BestStudent | None = None,
    events: Sequence[tuple[str, dict[str, Any]]] = (),
    warnings: Sequence[Notice] = (),
) -> bool:
    """Write what a runner reports. False means that another claim has the job.

    The fraction never falls, and a warning that the job already has is not repeated.
    """
    values: dict[str, Any] = {}
    if progress is not None:
        values |= _progress_values(progress)
    if best is not None:
        values["best"] = best.model_dump_json()
    if warnings:
        mine = select(_jobs.c.warnings).where(*owned_by(job_id, fence)).with_for_update()
        known = transaction.connection.execute(mine).scalar_one_or_none()
        if known is None:
            count_stale_write("record")
            return False
        values["warnings"] = _with_warnings(known, warnings)
    return _change_owned(transaction, job_id, fence, values, list(events), kind="record")


def _change_owned(
    transaction: Transaction,
    job_id: str,
    fence: int,
    values: dict[str, Any],
    events: Sequence[EventData],
    *,
    kind: str,
) -> bool:
    """Change a job that this claim owns. False, and a stale write of this kind is counted, if another claim has it."""
    if change(transaction, owned_by(job_id, fence), values, events) is None:
        count_stale_write(kind)
        return False
    return True


def _progress_values(progress: Progress) -> dict[str, Any]:
    """Return the columns of a progress report. An agreement stays until a report brings another one."""
    fraction = progress.fraction
    values = progress.model_dump(exclude={"agreement"} if progress.agreement is None else None)
    values["eta_at"] = None if progress.eta_seconds is None else now()
    return values | {"fraction": case((_jobs.c.fraction < fraction, fraction), else_=_jobs.c.fraction)}


def _with_warnings(known: str, warnings: Sequence[Notice]) -> str:
    every = dict.fromkeys([*WARNINGS.validate_json(known), *warnings])
    return json_text(list(every))


def record_checkpoint(
    transaction: Transaction, job_id: str, fence: int, *, step: int, sha256: str, num_bytes: int
) -> bool:
    """Make this the last checkpoint and keep the one before it. False means that another claim has the job.

    A checkpoint of a newer step sets the count of consecutive crashes to 0.
    """
    newer = or_(_jobs.c.checkpoint_step.is_(None), _jobs.c.checkpoint_step < step)
    another = or_(_jobs.c.checkpoint_sha256.is_(None), _jobs.c.checkpoint_sha256 != sha256)
    values = {
        "crash_streak": case((newer, 0), else_=_jobs.c.crash_streak),
        "previous_checkpoint_sha256": case(
            (another, _jobs.c.checkpoint_sha256), else_=_jobs.c.previous_checkpoint_sha256
        ),
        "previous_checkpoint_bytes": case((another, _jobs.c.checkpoint_bytes), else_=_jobs.c.previous_checkpoint_bytes),
        "checkpoint_sha256": sha256,
        "checkpoint_bytes": num_bytes,
        "checkpoint_step": step,
    }
    return _change_owned(transaction, job_id, fence, values, [("checkpoint", {"step": step})], kind="checkpoint")


def succeed(
    transaction: Transaction,
    job_id: str,
    fence: int,
    *,
    artifacts: Sequence[ArtifactRef],
    best: BestStudent | None = None,
) -> bool:
    """End a job as succeeded and publish its files, which must be in the artifact store already.

    The commit makes the files downloadable. False means that another claim has the job, or that it is being cancelled.
    """
    row = lock_owned(transaction, job_id, fence, "succeed")
    if row is None or row.cancel_requested_at is not None:
        return False
    values = {"state": JobState.SUCCEEDED, "finished_at": now(), "stage": "done", "fraction": 1.0, "message": None}
    if best is not None:
        values |= {"best": best.model_dump_json(), "agreement": best.agreement}
    event = ("succeeded", {"artifacts": [artifact.name for artifact in artifacts]})
    end_attempt(transaction, row, values, [event])
    if artifacts:
        lines = [{"job_number": row.number, **artifact.model_dump()} for artifact in artifacts]
        transaction.connection.execute(insert(tables.artifacts), lines)
    return True


def fail(transaction: Transaction, job_id: str, fence: int, *, error: JobError) -> bool:
    """End a job as failed, or as cancelled if a cancel was requested. False means that another claim has the job."""
    row = lock_owned(transaction, job_id, fence, "fail")
    if row is None:
        return False
    if row.cancel_requested_at is not None:
        end_cancelled(transaction, row)
    else:
        end_failed(transaction, row, error)
    return True


def cancelled(transaction: Transaction, job_id: str, fence: int) -> bool:
    """End a job as cancelled after its runner has stopped.

    False means that another claim has the job, or that no cancel was requested.
    """
    row = lock_owned(transaction, job_id, fence, "cancelled")
    if row is None or row.cancel_requested_at is None:
        return False
    end_cancelled(transaction, row)
    return True


def paused(transaction: Transaction, job_id: str, fence: int) -> bool:
    """Pause a job after its runner has stopped, or end it as cancelled if a cancel was requested too.

    False means that another claim has the job, or that it was resumed. The attempt is not counted.
    """
    row = lock_owned(transaction, job_id, fence, "paused")
    if row is None:
        return False
    if row.cancel_requested_at is not None:
        end_cancelled(transaction, row)
        return True
    if row.pause_requested_at is None:
        return False
    values = paused_values() | {"attempt": row.attempt - 1}
    end_attempt(transaction, row, values, [("paused", {"attempt": row.attempt})])
    return True


def release(
    transaction: Transaction,
    context: LedgerContext,
    job_id: str,
    fence: int,
    *,
    reason: str,
    charged: bool,
    delay_seconds: float = 0.0,
) -> bool:
    """Put a job back into the queue, or pause it if that was requested. False means that another claim has the job.

    A charged release is a crash. `max_crashes` of them without a newer checkpoint end the job as `poison`, and
    `max_attempts` attempts end it as `worker-lost`. An uncharged release does not count the attempt, up to
    UNCHARGED_CAP times.
    """
    row = lock_owned(transaction, job_id, fence, "release")
    if row is None:
        return False
    give_back(transaction, context.limits, row, reason=reason, charged=charged, delay_seconds=delay_seconds)
    return True
