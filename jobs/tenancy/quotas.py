"""Quotas: how much a tenant may have, how much it has, and the refusal of more.

The limits are those of the settings or, for a tenant that has its own, of the ledger. What is used is counted where it
is, at the moment of the question; there is no counter that could go astray. A submission is counted and inserted in one
transaction that no other submission of its tenant overlaps, so that many at once never get past a limit. Likewise a
claim. What was accepted is never refused later: a job that comes back to the queue comes back, and a student is kept.
"""

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, and_, func, or_, select, union

from jobs.db import tables
from jobs.db.db_time import DAY_SECONDS, elapsed_seconds, now, today
from jobs.errors import ClaimRaceLost, QuotaExceeded
from jobs.metrics import QUOTA_REFUSED
from jobs.models import JobState
from jobs.quota_limits import UNLIMITED, Quota, Quotas
from jobs.tenancy import usage
from jobs.tenancy.teachers import is_live

WAITING = (JobState.QUEUED, JobState.PAUSED)
"""What counts as queued: otherwise a tenant could pause, submit more, and resume."""

_jobs, _tenants = tables.jobs, tables.tenants


@dataclass(frozen=True, slots=True)
class Use:
    """One quota of a tenant."""

    limit: int  # 0: none
    used: int


class LockKind(IntEnum):
    """What two transactions of one tenant do not do at once."""

    SUBMIT = 0x64667375
    CLAIM = 0x6466636C


def of_tenant(connection: Connection, tenant: str, defaults: Quotas) -> Quotas:
    """The limits of one tenant."""
    row = connection.execute(select(_tenants).where(_tenants.c.tenant == tenant)).one_or_none()
    return defaults if row is None else merged(row, defaults)


def merged(row: Row[Any], defaults: Quotas) -> Quotas:
    """The limits in a row of the tenants, filled up with the defaults."""
    own = {quota: row._mapping[quota] for quota in Quota if row._mapping[quota] is not None}
    return Quotas(**asdict(defaults) | own)


def quota_usage(connection: Connection, tenant: str, defaults: Quotas) -> dict[Quota, Use]:
    """Every quota of a tenant, and what it has used of it."""
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
    """QuotaExceeded where there is no room for a teacher of at least `num_bytes`.

    With its id: none for one that the tenant has sent before.
    """
    limit = of_tenant(connection, tenant, defaults).stored_bytes
    if not limit or (teacher_id is not None and _holds(connection, tenant, teacher_id)):
        return
    used = _stored_bytes(connection, tenant)
    if used + num_bytes > limit:
        raise _exceeded(Quota.STORED_BYTES, limit, used)


def check_job(connection: Connection, tenant: str, defaults: Quotas) -> None:
    """QuotaExceeded where the tenant may not submit another job, whatever its teacher."""
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
    """Until the transaction ends, no other submission of this tenant is counted. What is checked next stays true."""
    if of_tenant(connection, tenant, defaults) != UNLIMITED:
        _alone(connection, LockKind.SUBMIT, tenant)


def recheck_running_quota(connection: Connection, tenant: str, defaults: Quotas) -> None:
    """ClaimRaceLost where another claim has taken the tenant's last place since the line was read.

    On SQLite, where a writer is alone, what the line says is still true.
    """
    if connection.dialect.name == "sqlite":
        return
    limit = of_tenant(connection, tenant, defaults).running_jobs
    if limit:
        _alone(connection, LockKind.CLAIM, tenant)
        if _num_jobs(connection, tenant, JobState.RUNNING) >= limit:
            raise ClaimRaceLost


def daily_quota_spent(connection: Connection, tenant: str, defaults: Quotas) -> bool:
    """Whether the tenant has used up its device-seconds of today."""
    limit = of_tenant(connection, tenant, defaults).device_seconds_per_day
    return limit > 0 and usage.device_seconds(connection, tenant) >= limit


def may_run_more(
    limits: FromClause, num_running: ColumnElement[int], spent_seconds: ColumnElement[float], defaults: Quotas
) -> ColumnElement[bool]:
    """The same, as a condition on tenants that are joined with their rows of limits."""
    running = func.coalesce(limits.c.running_jobs, defaults.running_jobs)
    seconds = func.coalesce(limits.c.device_seconds_per_day, defaults.device_seconds_per_day)
    return and_(or_(running == 0, num_running < running), or_(seconds == 0, spent_seconds < seconds))


def _holds(connection: Connection, tenant: str, teacher_id: str) -> bool:
    held = tables.tenant_teachers
    mine = select(held.c.tenant).where(held.c.tenant == tenant, held.c.teacher_id == teacher_id, is_live())
    return connection.execute(mine).first() is not None


def _alone(connection: Connection, turn: LockKind, tenant: str) -> None:
    """On SQLite a write transaction is alone anyway. A transaction takes one turn at most: none wait in a ring."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(int(turn), func.hashtext(tenant))))


def _num_jobs(connection: Connection, tenant: str, *states: JobState) -> int:
    counted = select(func.count()).where(_jobs.c.tenant == tenant, _jobs.c.state.in_(states))
    return int(connection.execute(counted).scalar_one())


def _stored_bytes(connection: Connection, tenant: str) -> int:
    """Bytes of the teachers that the tenant has sent and of its published files, equal ones once."""
    stored = union(_teachers_of(tenant), _files_of(tenant)).subquery()
    return int(connection.execute(select(func.coalesce(func.sum(stored.c.bytes), 0))).scalar_one())


def _teachers_of(tenant: str) -> Select[Any]:
    held, teachers = tables.tenant_teachers, tables.teachers
    sent = select(teachers.c.id.label("sha256"), teachers.c.bytes)
    return sent.join(held, held.c.teacher_id == teachers.c.id).where(held.c.tenant == tenant, is_live())


def _files_of(tenant: str) -> Select[Any]:
    files = tables.artifacts
    published = select(files.c.sha256, files.c.bytes).join(_jobs, _jobs.c.number == files.c.job_number)
    return published.where(_jobs.c.tenant == tenant, _jobs.c.state == JobState.SUCCEEDED)


def _exceeded(quota: Quota, limit: int, used: int, *, retry_after_seconds: float | None = None) -> QuotaExceeded:
    QUOTA_REFUSED.labels(quota.value).inc()
    return QuotaExceeded(quota, limit=limit, used=used, retry_after_seconds=retry_after_seconds)


for _quota in (Quota.QUEUED_JOBS, Quota.STORED_BYTES, Quota.DEVICE_SECONDS):
    QUOTA_REFUSED.labels(_quota.value)  # told as 0 from the beginning
