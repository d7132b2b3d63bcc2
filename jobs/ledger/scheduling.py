"""Scheduling: the order in which queued jobs are claimed. Higher priority comes first, then the lower turn, then the
tenant that was served longer ago, then age.

turn = the tenant's running jobs + the job's rank among the tenant's queued jobs. So workers that claim at the same time
follow the same order as workers that claim one after another; each skips the rows that the others have locked.

The index `jobs_in_line` keeps queued jobs in groups of one device class, spec version, priority and tenant, each by
age. One look-up leads from group to group, another to the heads of a group, and only the heads are compared: neither
the depth of the queue nor the jobs that have ended cost anything, only the number of groups does.

Tenants that have reached their quota of running jobs or of device-seconds per day are left out.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    bindparam,
    case,
    func,
    select,
    true,
    tuple_,
)

from jobs import models
from jobs.db import tables
from jobs.db.db_time import now
from jobs.devices import DeviceClass, served_by
from jobs.models import JobState
from jobs.quota_limits import UNLIMITED, Quotas
from jobs.tenancy import quotas, usage

STATEMENT_CACHE_SIZE = 32  # of each function; building a statement takes longer than running it
SPARE_HEADS = 15  # heads that other workers may have locked; on SQLite only one transaction writes

Condition = Callable[[FromClause], list[ColumnElement[bool]]]

_jobs = tables.jobs
_GROUP = ("device_class", "spec_version", "priority", "tenant")


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def next_job(
    dialect: str, device_class: DeviceClass, defaults: Quotas = UNLIMITED, memory_bytes: int | None = None
) -> Select[Any]:
    """Return the query for the job that a worker of this class claims now. It locks the row, and skips locked rows.

    `defaults` are the limits of the tenants that have none of their own. Jobs that are known to need more memory than
    `memory_bytes` are left to other workers.
    """

    def ours(job: FromClause) -> list[ColumnElement[bool]]:
        readable = job.c.spec_version <= models.SPEC_VERSION
        return [job.c.device_class.in_(served_by(device_class)), readable]

    def fits(job: FromClause) -> list[ColumnElement[bool]]:
        needed = job.c.cpu_memory_bytes if device_class is DeviceClass.CPU else job.c.gpu_memory_bytes
        return [*_due(job), func.coalesce(needed, 0) <= memory_bytes]

    return _first(dialect, 1, ours, _due if memory_bytes is None else fits, defaults)


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def due_for_notification(
    dialect: str, device_class: DeviceClass, limit: int, defaults: Quotas = UNLIMITED
) -> Select[Any]:
    """Return the query for due jobs of exactly this class about which workers should be notified, in the order of
    claims.
    """

    def due_again(job: FromClause) -> list[ColumnElement[bool]]:
        return [*_due(job), job.c.ring_at <= now()]

    return _first(dialect, limit, lambda job: [job.c.device_class == device_class], due_again, defaults)


def place(connection: Connection, row: Row[Any]) -> int:
    """Return the place of a queued job: 1 if it is claimed next. Jobs for other classes of device are not counted."""
    groups = connection.execute(_waiting(DeviceClass(row.device_class)), {"own_number": row.number}).all()
    higher: dict[str, int] = dict.fromkeys((group.tenant for group in groups), 0)
    for group in groups:
        higher[group.tenant] += group.num if group.priority > row.priority else 0
    level = {group.tenant: group for group in groups if group.priority == row.priority}
    own = level[row.tenant]
    turn = own.running + higher[row.tenant] + own.older
    ahead: int = sum(higher.values()) + own.older
    for tenant, group in level.items():
        if tenant != row.tenant:
            before = turn - group.running - higher[tenant] + _comes_first(group, own)
            ahead += min(group.num, max(0, before))
    return 1 + ahead


def _comes_first(group: Row[Any], own: Row[Any]) -> bool:
    """True if the other tenant's job comes first when both jobs have the same turn."""
    if group.served == own.served:
        return bool(group.oldest < own.oldest)
    return own.served is not None and (group.served is None or group.served < own.served)


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _waiting(device_class: DeviceClass) -> Select[Any]:
    """Queued jobs by tenant and priority: their number, the number older than job `own_number`, and the oldest."""
    older = func.sum(case((_jobs.c.number < bindparam("own_number"), 1), else_=0)).label("older")
    columns = (func.count().label("num"), older, func.min(_jobs.c.number).label("oldest"))
    counted = select(_jobs.c.tenant, _jobs.c.priority, *columns).where(_jobs.c.state == JobState.QUEUED)
    if device_class is not DeviceClass.ANY:
        counted = counted.where(_jobs.c.device_class.in_(served_by(device_class)))
    groups = counted.group_by(_jobs.c.tenant, _jobs.c.priority).cte("waiting")
    tenants = _tenants(groups)
    columns_of_tenants = (tenants.c.running, tenants.c.served)
    return select(*groups.c, *columns_of_tenants).join_from(groups, tenants, tenants.c.tenant == groups.c.tenant)


def _first(dialect: str, limit: int, group: Condition, condition: Condition, defaults: Quotas) -> Select[Any]:
    """Return the query that locks, in claim order, the first rows that meet `condition` in groups that meet `group`."""
    num_heads = limit if dialect == "sqlite" else limit + SPARE_HEADS
    heads = _heads(dialect, group, condition, num_heads)
    tenants = _tenants(heads)
    waiting = func.row_number().over(partition_by=heads.c.tenant, order_by=(heads.c.priority.desc(), heads.c.number))
    turn = (tenants.c.running + waiting).label("turn")
    line = select(heads.c.number, heads.c.priority, turn, tenants.c.served)
    line = line.join_from(heads, tenants, tenants.c.tenant == heads.c.tenant)
    limits = tables.tenants.alias("limits")
    line = line.outerjoin(limits, limits.c.tenant == heads.c.tenant)
    line = line.where(quotas.may_run_more(limits, tenants.c.running, tenants.c.spent, defaults))
    turns = line.order_by(*_order(heads, turn, tenants)).limit(num_heads).subquery("turns")
    # The condition applies to the row once more, because the row may have changed since the heads were read.
    rows = select(_jobs).join(turns, turns.c.number == _jobs.c.number)
    rows = rows.where(_jobs.c.state == JobState.QUEUED, *condition(_jobs))
    rows = rows.order_by(*_order(turns, turns.c.turn, turns)).limit(limit)
    return rows.with_for_update(of=_jobs, skip_locked=True)


def _heads(dialect: str, group: Condition, condition: Condition, num_heads: int) -> CTE:
    """Return the first `num_heads` jobs of every group. SQLite has no LATERAL: there they are selected by number."""
    groups, leader, job, head = _groups(), _jobs.alias("leader"), _jobs.alias("job"), _jobs.alias("head")
    alike = [job.c[name] == leader.c[name] for name in _GROUP]
    near = select(job.c.number, job.c.tenant, job.c.priority).where(job.c.state == JobState.QUEUED, *alike)
    near = near.where(*condition(job)).order_by(job.c.number).limit(num_heads).correlate(leader)
    leaders = groups.join(leader, leader.c.number == groups.c.number)
    found: FromClause = near.lateral("head") if dialect == "postgresql" else head
    meets = true() if dialect == "postgresql" else head.c.number.in_(near.with_only_columns(job.c.number))
    columns = (found.c.number, found.c.tenant, found.c.priority)
    return select(*columns).select_from(leaders.join(found, meets)).where(*group(leader)).cte("heads")


def _groups() -> CTE:
    """Return the oldest queued job of every group: from each, one step through the index to the next."""
    first, last, after = (_jobs.alias(name) for name in ("first", "last", "after"))
    groups = select(_oldest(first).scalar_subquery().label("number")).cte("groups", recursive=True)
    # With bare columns SQLite uses only the first column of the index, so each column stands in a CASE. COALESCE would
    # not do: PostgreSQL assumes that it could reveal rows that `jobs.db.row_security` hides, and uses no index then.
    here = [case((true(), value)) for value in _group(last)]
    further = _oldest(after, tuple_(*_group(after)) > tuple_(*here)).correlate(last).scalar_subquery()
    return groups.union_all(select(further).join_from(groups, last, last.c.number == groups.c.number))


def _oldest(job: FromClause, *condition: ColumnElement[bool]) -> Select[Any]:
    ordered = select(job.c.number).where(job.c.state == JobState.QUEUED, *condition)
    return ordered.order_by(*_group(job), job.c.number).limit(1)


def _group(job: FromClause) -> Sequence[ColumnElement[Any]]:
    return [job.c[name] for name in _GROUP]


def _due(job: FromClause) -> list[ColumnElement[bool]]:
    return [job.c.not_before <= now()]


def _order(jobs: FromClause, turn: ColumnElement[int], tenants: FromClause) -> list[ColumnElement[Any]]:
    return [jobs.c.priority.desc(), turn, tenants.c.served.asc().nulls_first(), jobs.c.number]


def _tenants(among: FromClause) -> FromClause:
    """For every tenant in `among`: its running jobs, the time of its last start, and its device-seconds of today."""
    names, job = select(among.c.tenant).distinct().subquery("names"), _jobs.alias("served")
    seconds = usage.running_seconds(_jobs).label("seconds")
    counted = select(_jobs.c.tenant, func.count().label("num"), seconds).where(_jobs.c.state == JobState.RUNNING)
    running = counted.group_by(_jobs.c.tenant).subquery("running")
    last = select(job.c.started_at).where(job.c.tenant == names.c.tenant, job.c.started_at.is_not(None))
    served = last.order_by(job.c.started_at.desc()).limit(1).scalar_subquery().label("served")
    ended = tables.usage
    spent = func.coalesce(running.c.seconds, 0.0) + func.coalesce(ended.c.device_seconds, 0.0)
    found = select(names.c.tenant, func.coalesce(running.c.num, 0).label("running"), served, spent.label("spent"))
    found = found.outerjoin_from(names, running, running.c.tenant == names.c.tenant)
    found = found.outerjoin(ended, (ended.c.tenant == names.c.tenant) & usage.is_of_today())
    return found.subquery("tenants")
