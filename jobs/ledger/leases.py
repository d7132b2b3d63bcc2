"""Leases: how workers claim, renew, report on, end and release jobs, and how jobs of dead workers are taken back.

Every function takes an open write transaction and changes a job by one UPDATE, which is guarded by the job's state and
fencing number. A worker with an old fencing number changes nothing, and the function returns None or False. A cancel
request wins over everything except a success that was committed before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, exists, func, insert, or_, select, update

from dfkd_core.notice import Notice
from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now
from jobs.db.mapping import WARNINGS, EventData, change, json_text, read_jobs, select_jobs, spec_from_text
from jobs.devices import DeviceClass
from jobs.ledger import scheduling
from jobs.ledger.attempt_end import LEASE_EXPIRED, end_attempt, owned_by, silent_seconds
from jobs.models import ArtifactRef, BestStudent, Job, JobError, JobSpec, JobState, Progress
from jobs.quota_limits import Quotas
from jobs.tenancy import quotas

UNCHARGED_CAP = 50
"""How often an attempt is given back; after that each release costs one, so that nothing loops for ever."""

MAX_BACKOFF_SECONDS = 300.0
MAX_RING_SECONDS = 30.0
BATCH = 100  # expired leases in one transaction
REFUSALS = 100  # unreadable jobs in one transaction
MAX_NOTIFICATIONS = 20  # of each device class in one sweep: a message only says "look at the table"

_jobs = tables.jobs


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed job. The claim lasts until its lease ends; every later write carries `fence`."""

    job: Job
    spec: JobSpec  # the job's, which this version can read
    fence: int
    checkpoint_sha256: str | None  # resume from here,
    previous_checkpoint_sha256: str | None  # or from here when that one is damaged
    checkpoint_step: int | None
    silent_seconds: float | None = None  # without a heartbeat, where a worker was lost before


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer to a heartbeat."""

    cancel_requested: bool
    pause_requested: bool
    over_quota: bool = False  # the tenant has used all its device-seconds of the day


@dataclass(frozen=True, slots=True)
class Limits:
    """How many attempts and crashes end a job as failed."""

    max_attempts: int
    max_crashes: int


@dataclass(slots=True)
class Sweep:
    """What a sweep found, as job ids."""

    expired: list[str] = field(default_factory=list)  # back in the queue
    failed: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    notify: dict[str, DeviceClass] = field(default_factory=dict)  # queued, due, and not notified lately
    attempts: dict[str, int] = field(default_factory=dict)  # of the jobs above, those to ring for left out


def claim(
    transaction: Transaction,
    owner: str,
    *,
    lease_seconds: float,
    threads: int,
    device_class: DeviceClass,
    defaults: Quotas,
) -> Claim | None:
    """Take the first queued job in line that is due and that this class of device serves; None when there is none.

    Earlier jobs whose spec this version cannot read fail: nobody could run them, and they would block the queue. Jobs
    of a higher spec version are left to newer workers.

    Raises:
        ClaimRaceLost: another claim has just taken the tenant's last permitted running job.
    """
    dialect = transaction.connection.dialect.name
    for _ in range(REFUSALS):
        row = transaction.connection.execute(scheduling.next_job(dialect, device_class, defaults)).one_or_none()
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
    """Fail a queued job whose spec cannot be read."""
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
    transaction: Transaction, job_id: str, fence: int, *, lease_seconds: float, defaults: Quotas
) -> Lease | None:
    """Renew the lease; None means fenced out."""
    values = {"lease_until": now(lease_seconds), "heartbeat_at": now()}
    row = change(transaction, owned_by(job_id, fence), values)
    if row is None:
        return None
    return Lease(
        cancel_requested=row.cancel_requested_at is not None,
        pause_requested=row.pause_requested_at is not None,
        over_quota=quotas.daily_quota_spent(transaction.connection, row.tenant, defaults),
    )


def record(
    transaction: Transaction,
    job_id: str,
    fence: int,
    *,
    progress: Progress | None,
    best: BestStudent | None,
    events: Sequence[tuple[str, dict[str, Any]]],
    warnings: Sequence[Notice],
) -> bool:
    """Write progress, the published student, history and warnings. A warning that is there already is not repeated."""
    values: dict[str, Any] = {}
    if progress is not None:
        values |= _progress_values(progress)
    if best is not None:
        values["best"] = best.model_dump_json()
    if warnings:
        mine = select(_jobs.c.warnings).where(*owned_by(job_id, fence)).with_for_update()
        known = transaction.connection.execute(mine).scalar_one_or_none()
        if known is None:
            return False
        values["warnings"] = _with_warnings(known, warnings)
    return change(transaction, owned_by(job_id, fence), values, list(events)) is not None


def _progress_values(progress: Progress) -> dict[str, Any]:
    """The columns of `progress`; the fraction never falls, and an agreement stays until there is another."""
    fraction = progress.fraction
    values = progress.model_dump(exclude={"agreement"} if progress.agreement is None else None)
    return values | {"fraction": case((_jobs.c.fraction < fraction, fraction), else_=_jobs.c.fraction)}


def _with_warnings(known: str, warnings: Sequence[Notice]) -> str:
    every = dict.fromkeys([*WARNINGS.validate_json(known), *warnings])
    return json_text(list(every))


def record_checkpoint(transaction: Transaction, job_id: str, fence: int, *, step: int, sha256: str) -> bool:
    """Resume from this checkpoint from now on; the one before is kept. A newer step ends the row of crashes."""
    newer = or_(_jobs.c.checkpoint_step.is_(None), _jobs.c.checkpoint_step < step)
    another = or_(_jobs.c.checkpoint_sha256.is_(None), _jobs.c.checkpoint_sha256 != sha256)
    values = {
        "crash_streak": case((newer, 0), else_=_jobs.c.crash_streak),
        "previous_checkpoint_sha256": case(
            (another, _jobs.c.checkpoint_sha256), else_=_jobs.c.previous_checkpoint_sha256
        ),
        "checkpoint_sha256": sha256,
        "checkpoint_step": step,
    }
    return change(transaction, owned_by(job_id, fence), values, [("checkpoint", {"step": step})]) is not None


def succeed(
    transaction: Transaction, job_id: str, fence: int, *, artifacts: Sequence[ArtifactRef], best: BestStudent | None
) -> bool:
    """Publish: this commit makes the files downloadable. False when fenced out or when a cancel came first."""
    values = {"state": JobState.SUCCEEDED, "finished_at": now(), "stage": "done", "fraction": 1.0, "message": None}
    if best is not None:
        values |= {"best": best.model_dump_json(), "agreement": best.agreement}
    event = ("succeeded", {"artifacts": [artifact.name for artifact in artifacts]})
    row = select_for_update(transaction.connection, *owned_by(job_id, fence), _jobs.c.cancel_requested_at.is_(None))
    if row is None or end_attempt(transaction, row, values, [event]) is None:
        return False
    if artifacts:
        lines = [{"job_number": row.number, **artifact.model_dump()} for artifact in artifacts]
        transaction.connection.execute(insert(tables.artifacts), lines)
    return True


def fail(transaction: Transaction, job_id: str, fence: int, *, error: JobError) -> bool:
    """End the job for good; as cancelled where a cancel is under way. False when fenced out."""
    row = select_for_update(transaction.connection, *owned_by(job_id, fence))
    if row is None:
        return False
    if row.cancel_requested_at is not None:
        return end_cancelled(transaction, row) is not None
    return _end_failed(transaction, row, error) is not None


def cancelled(transaction: Transaction, job_id: str, fence: int) -> bool:
    """End a job whose runner has stopped for a cancel. False: another claim has it, or no cancel was requested."""
    row = select_for_update(transaction.connection, *owned_by(job_id, fence), _jobs.c.cancel_requested_at.is_not(None))
    return row is not None and end_cancelled(transaction, row) is not None


def release(
    transaction: Transaction,
    job_id: str,
    fence: int,
    *,
    reason: str,
    charged: bool,
    delay_seconds: float,
    limits: Limits,
) -> bool:
    """Give the job back. Charged: a crash, which counts. Uncharged: not the job's fault, the attempt is returned."""
    row = select_for_update(transaction.connection, *owned_by(job_id, fence))
    if row is None:
        return False
    _give_back(transaction, row, reason=reason, charged=charged, delay_seconds=delay_seconds, limits=limits)
    return True


def something_to_sweep(connection: Connection) -> bool:
    """Whether a sweep would write anything; cheap, takes no lock."""
    return bool(
        connection.execute(select(or_(exists().where(_expired()), exists().where(_notification_due())))).scalar()
    )


def sweep(transaction: Transaction, *, limits: Limits, backoff_seconds: float, defaults: Quotas) -> Sweep:
    """Release the jobs of dead workers, and choose the jobs to notify workers of. Any number of processes may sweep."""
    found = Sweep()
    statement = select(_jobs).where(_expired()).order_by(_jobs.c.number).limit(BATCH).with_for_update(skip_locked=True)
    expired = transaction.connection.execute(statement).all()
    for row in sorted(expired, key=lambda row: str(row.tenant)):  # two sweeps charge tenants in the same order
        delay_seconds = min(backoff_seconds * 2.0**row.crash_streak, MAX_BACKOFF_SECONDS)
        state = _give_back(
            transaction,
            row,
            reason=LEASE_EXPIRED,
            charged=True,
            delay_seconds=delay_seconds,
            limits=limits,
            until=row.heartbeat_at,
        )
        lists = {JobState.QUEUED: found.expired, JobState.FAILED: found.failed, JobState.CANCELLED: found.cancelled}
        lists |= {JobState.PAUSED: found.paused}
        lists[state].append(row.id)
        found.attempts[row.id] = row.attempt
    found.notify = _take_notifications(transaction.connection, defaults)
    return found


def _expired() -> ColumnElement[bool]:
    return and_(_jobs.c.state == JobState.RUNNING, _jobs.c.lease_until < now())


def _notification_due() -> ColumnElement[bool]:
    return and_(_jobs.c.state == JobState.QUEUED, _jobs.c.not_before <= now(), _jobs.c.ring_at <= now())


def _take_notifications(connection: Connection, defaults: Quotas) -> dict[str, DeviceClass]:
    """Due jobs of each class, in the order of claims. A job that stays queued is due again after 2, 4, 8 … 30 s.

    Without that pause every sweep of every process would send a message for every queued job, and the broker would
    fill up while all slots are busy.
    """
    statements = [
        scheduling.due_for_notification(connection.dialect.name, device_class, MAX_NOTIFICATIONS, defaults)
        for device_class in DeviceClass
    ]
    rows = [row for statement in statements for row in connection.execute(statement)]
    for row in rows:
        pause_seconds = min(2.0 * 2.0 ** min(row.rings, 10), MAX_RING_SECONDS)
        guard = [_jobs.c.number == row.number, _jobs.c.state == JobState.QUEUED, _jobs.c.rings == row.rings]
        connection.execute(update(_jobs).where(*guard).values(rings=row.rings + 1, ring_at=now(pause_seconds)))
    return {row.id: DeviceClass(row.device_class) for row in rows}


def select_for_update(connection: Connection, *guard: ColumnElement[bool]) -> Row[Any] | None:
    return connection.execute(select(_jobs).where(*guard).with_for_update()).one_or_none()


def _give_back(
    transaction: Transaction,
    row: Row[Any],
    *,
    reason: str,
    charged: bool,
    delay_seconds: float,
    limits: Limits,
    until: datetime | None = None,
) -> JobState:
    """A running row goes back to the queue; or is paused or cancelled as asked; or fails, its chances spent."""
    if row.cancel_requested_at is not None:
        end_cancelled(transaction, row, until)
        return JobState.CANCELLED
    returned = not charged and row.uncharged_releases < UNCHARGED_CAP
    counts = {
        "attempt": row.attempt - (1 if returned else 0),
        "crash_streak": row.crash_streak + (1 if charged else 0),
        "uncharged_releases": row.uncharged_releases + (0 if charged else 1),
    }
    error = _spent(counts, reason, limits)
    if error is not None:
        _end_failed(transaction, row, error, until, counts)
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
    """The columns of a paused job."""
    return {"state": JobState.PAUSED, "stage": "paused", "message": None, "pause_requested_at": None}


def _spent(counts: dict[str, int], reason: str, limits: Limits) -> JobError | None:
    """The error of a job that has used up its attempts or crashes; None if it has not."""
    crashes, attempts = counts["crash_streak"], counts["attempt"]
    if crashes >= limits.max_crashes:
        detail = f"the runner died {crashes} times without getting any further (last: {reason})"
        hint = "It would die again. Look at memory and at the teacher; a smaller student or batch may help."
        return JobError(code="poison", detail=detail, hint=hint)
    if attempts >= limits.max_attempts:
        detail = f"the worker was lost in {attempts} attempts (last: {reason})"
        return JobError(code="worker-lost", detail=detail, hint="Submit the job again when the workers are steady.")
    return None


def _end_failed(
    transaction: Transaction,
    row: Row[Any],
    error: JobError,
    until: datetime | None = None,
    counts: dict[str, int] | None = None,
) -> Row[Any] | None:
    stage = error.stage or (row.stage if row.stage != "queued" else None)
    complete = error.model_copy(update={"stage": stage, "attempt": error.attempt or row.attempt})
    values = {"state": JobState.FAILED, "finished_at": now(), "error": complete.model_dump_json(), **(counts or {})}
    return end_attempt(transaction, row, values, [("failed", complete.model_dump())], until=until)


def end_cancelled(transaction: Transaction, row: Row[Any], until: datetime | None = None) -> Row[Any] | None:
    values = {"state": JobState.CANCELLED, "finished_at": now()}
    return end_attempt(transaction, row, values, [("cancelled", {})], until=until)
