"""Quotas: the limits of a tenant, how much of them it uses, and the refusal of more.

A tenant has the limits of its row in the ledger or else those of the settings. The use is counted from the rows each
time; there is no separate counter that could become wrong. A submission is counted and inserted in one
transaction, and a lock keeps other submissions of the tenant from running beside it, so that concurrent requests cannot
exceed a limit. Claims are locked in the same way. An accepted job is never refused later: it may return to the queue,
and its student is kept, even if a limit is exceeded.
"""

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, and_, func, or_, select, union

from jobs.db import tables
from jobs.db.db_time import DAY_SECONDS, elapsed_seconds, now, today
from jobs.errors import ClaimRaceLost, QuotaExceeded
from jobs.metrics import QUOTA_REFUSED
from jobs.models import TERMINAL, JobState
from jobs.quota_limits import UNLIMITED, Quota, Quotas
from jobs.tenancy import usage
from jobs.tenancy.teachers import is_live

WAITING = (JobState.QUEUED, JobState.PAUSED)
"""The states that count as queued. Paused jobs count, or else a tenant could pause jobs, submit more, and resume."""

_jobs, _tenants = tables.jobs, tables.tenants


@dataclass(frozen=True, slots=True)
class Use:
    """The limit and the use of one quota of a tenant."""

    limit: int  # 0: none
    used: int


class LockKind(IntEnum):
    """The actions that a lock serialises for each tenant."""

    SUBMIT = 0x64667375  # "dfsu" in ASCII: the first key of PostgreSQL's advisory lock
    CLAIM = 0x6466636C  # "dfcl"


def of_tenant(connection: Connection, tenant: str, defaults: Quotas) -> Quotas:
    """Return the limits of one tenant."""
    row = connection.execute(select(_tenants).where(_tenants.c.tenant == tenant)).one_or_none()
    return defaults if row is None else merged(row, defaults)


def merged(row: Row[Any], defaults: Quotas) -> Quotas:
    """Return the limits in a row of the table of tenants; a missing limit is the default."""
    own = {quota: row._mapping[quota] for quota in Quota if row._mapping[quota] is not None}
    return Quotas(**asdict(defaults) | own)


def quota_usage(connection: Connection, tenant: str, defaults: Quotas) -> dict[Quota, Use]:
    """Every quota of a tenant with its limit and its use."""
    limits = of_tenant(connection, tenant, defaults)
    used = {
        Quota.QUEUED_JOBS: _num_jobs(connection, tenant, *WAITING),
        Quota.RUNNING_JOBS: _num_jobs(connection, tenant, JobState.RUNNING),
        Quota.STORED_BYTES: _stored_bytes(connection, tenant),
        Quota.DEVICE_SECONDS: int(usage.device_seconds(connection, tenant)),
    }
    return {quota: Use(getattr(limits, quota), used[quota]) for quota in Quota}


def check_upload(
    connection: Connection, tenant: str, defaults: Quotas, *, num_bytes: int, teacher_id: str | None = None
) -> None:
    """Check that the tenant may store a teacher of at least `num_bytes`. A teacher that it already has is free.

    Raises:
        QuotaExceeded: the teacher would exceed the limit of stored bytes.
    """
    limit = of_tenant(connection, tenant, defaults).stored_bytes
    if not limit or (teacher_id is not None and _has_teacher(connection, tenant, teacher_id)):
        return
    used = _stored_bytes(connection, tenant)
    if used + num_bytes > limit:
        raise _exceeded(Quota.STORED_BYTES, limit, used)


def check_job(connection: Connection, tenant: str, defaults: Quotas) -> None:
    """Check that the tenant may submit another job.

    Raises:
        QuotaExceeded: a limit is reached, whatever the teacher of the job.
    """
    limits = of_tenant(connection, tenant, defaults)
    if limits.device_seconds_per_day:
        spent = usage.device_seconds(connection, tenant)
        if spent >= limits.device_seconds_per_day:
            left_seconds = DAY_SECONDS - connection.execute(select(elapsed_seconds(now(), today()))).scalar_one()
            raise _exceeded(
                Quota.DEVICE_SECONDS, limits.device_seconds_per_day, int(spent), retry_after_seconds=left_seconds
            )
    if limits.queued_jobs:
        waiting = _num_jobs(connection, tenant, *WAITING)
        if waiting >= limits.queued_jobs:
            raise _exceeded(Quota.QUEUED_JOBS, limits.queued_jobs, waiting)
    if limits.stored_bytes:
        stored = _stored_bytes(connection, tenant)
        if stored > limits.stored_bytes:
            raise _exceeded(Quota.STORED_BYTES, limits.stored_bytes, stored)


def lock_submissions(connection: Connection, tenant: str, defaults: Quotas) -> None:
    """Block other submissions of this tenant until the transaction ends, so that the next checks stay valid."""
    if of_tenant(connection, tenant, defaults) != UNLIMITED:
        _lock(connection, LockKind.SUBMIT, tenant)


def recheck_running_quota(connection: Connection, tenant: str, defaults: Quotas) -> None:
    """Check again, under a lock, that the tenant may run another job.

    SQLite needs no second check, because only one transaction writes at a time.

    Raises:
        ClaimRaceLost: another claim has taken the tenant's last place since the queue was read.
    """
    if connection.dialect.name == "sqlite":
        return
    limit = of_tenant(connection, tenant, defaults).running_jobs
    if limit:
        _lock(connection, LockKind.CLAIM, tenant)
        if _num_jobs(connection, tenant, JobState.RUNNING) >= limit:
            raise ClaimRaceLost


def daily_quota_spent(connection: Connection, tenant: str, defaults: Quotas) -> bool:
    """True if the tenant has used up its device-seconds of today."""
    limit = of_tenant(connection, tenant, defaults).device_seconds_per_day
    return limit > 0 and usage.device_seconds(connection, tenant) >= limit


def may_run_more(
    limits: FromClause, num_running: ColumnElement[int], spent_seconds: ColumnElement[float], defaults: Quotas
) -> ColumnElement[bool]:
    """Return the condition that a tenant may run another job, for a query that joins tenants with their limits."""
    running = func.coalesce(limits.c.running_jobs, defaults.running_jobs)
    seconds = func.coalesce(limits.c.device_seconds_per_day, defaults.device_seconds_per_day)
    return and_(or_(running == 0, num_running < running), or_(seconds == 0, spent_seconds < seconds))


def _has_teacher(connection: Connection, tenant: str, teacher_id: str) -> bool:
    table = tables.tenant_teachers
    mine = select(table.c.tenant).where(table.c.tenant == tenant, table.c.teacher_id == teacher_id, is_live())
    return connection.execute(mine).first() is not None


def _lock(connection: Connection, kind: LockKind, tenant: str) -> None:
    """Take the tenant's lock of this kind until the transaction ends. SQLite needs none: it has one writer at a time.

    A transaction takes at most one such lock, so there can be no deadlock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(int(kind), func.hashtext(tenant))))


def _num_jobs(connection: Connection, tenant: str, *states: JobState) -> int:
    counted = select(func.count()).where(_jobs.c.tenant == tenant, _jobs.c.state.in_(states))
    return int(connection.execute(counted).scalar_one())


def _stored_bytes(connection: Connection, tenant: str) -> int:
    """Bytes of the tenant's teachers, of its published files and of its finished jobs' checkpoints.

    Equal files count once.
    """
    stored = union(_teachers_of(tenant), _files_of(tenant), _checkpoints_of(tenant)).subquery()
    return int(connection.execute(select(func.coalesce(func.sum(stored.c.bytes), 0))).scalar_one())


def _teachers_of(tenant: str) -> Select[Any]:
    held, teachers = tables.tenant_teachers, tables.teachers
    sent = select(teachers.c.id.label("sha256"), teachers.c.bytes)
    return sent.join(held, held.c.teacher_id == teachers.c.id).where(held.c.tenant == tenant, is_live())


def _files_of(tenant: str) -> Select[Any]:
    files = tables.artifacts
    published = select(files.c.sha256, files.c.bytes).join(_jobs, _jobs.c.number == files.c.job_number)
    return published.where(_jobs.c.tenant == tenant, _jobs.c.state == JobState.SUCCEEDED)


def _checkpoints_of(tenant: str) -> Select[Any]:
    ended = (_jobs.c.tenant == tenant, _jobs.c.state.in_(TERMINAL), _jobs.c.checkpoint_bytes.is_not(None))
    return select(_jobs.c.checkpoint_sha256, _jobs.c.checkpoint_bytes).where(*ended)


def _exceeded(quota: Quota, limit: int, used: int, *, retry_after_seconds: float | None = None) -> QuotaExceeded:
    QUOTA_REFUSED.labels(quota.value).inc()
    return QuotaExceeded(quota, limit=limit, used=used, retry_after_seconds=retry_after_seconds)


for _quota in (Quota.QUEUED_JOBS, Quota.STORED_BYTES, Quota.DEVICE_SECONDS):
    QUOTA_REFUSED.labels(_quota.value)  # the metric is 0, not absent, before the first refusal
