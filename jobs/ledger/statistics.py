"""Statistics of the whole deployment. They are counted in the ledger, so every process reports the same values."""

import itertools
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, union

from jobs.db import tables
from jobs.db.db_time import elapsed_seconds, now
from jobs.devices import DeviceClass
from jobs.ledger.queries import count_by_state
from jobs.models import SPEC_VERSION, JobState
from jobs.tenancy.teachers import has_bytes


@dataclass(frozen=True, slots=True)
class Queue:
    """Queued jobs that are due, of one spec version and device class."""

    depth: int = 0
    oldest_seconds: float = 0.0  # time for which the oldest of them has been due


@dataclass(frozen=True, slots=True)
class LedgerStatistics:
    """The values that a scrape of the metrics reads."""

    jobs: dict[JobState, int]
    queues: dict[tuple[int, DeviceClass], Queue]  # by spec version and device class
    crash_streak_max: int  # of the jobs that are not terminal
    events: dict[str, int]  # number of events by kind
    workers: dict[str, int]  # number of live workers by device
    slots: dict[str, int]  # of the live workers, by device
    busy: dict[str, int]  # slots in which a job runs, by device
    stored_bytes: dict[str, int]  # of the files that rows refer to, by kind; equal files of a kind count once


def ledger_statistics(connection: Connection, *, worker_seconds: float) -> LedgerStatistics:
    """Return the statistics of one snapshot. A worker without a heartbeat for `worker_seconds` is not counted."""
    jobs, events, workers = tables.jobs, tables.events, tables.workers
    live = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
    streak = select(func.coalesce(func.max(jobs.c.crash_streak), 0)).where(jobs.c.state.in_(live))
    kinds = select(events.c.kind, func.count()).group_by(events.c.kind)
    seen = select(workers.c.device, func.count(), func.sum(workers.c.slots)).group_by(workers.c.device)
    devices = connection.execute(seen.where(workers.c.seen_at >= now(-worker_seconds))).all()
    return LedgerStatistics(
        jobs=count_by_state(connection),
        queues=_queues(connection),
        crash_streak_max=int(connection.execute(streak).scalar_one()),
        events={kind: count for kind, count in connection.execute(kinds).all()},  # noqa: C416 - rows are no pairs to mypy
        workers={device: count for device, count, _ in devices},
        slots={device: int(slots) for device, _, slots in devices},
        busy=dict.fromkeys((device for device, _, _ in devices), 0) | _busy(connection),
        stored_bytes=_stored_bytes(connection),
    )


def _busy(connection: Connection) -> dict[str, int]:
    jobs, workers = tables.jobs, tables.workers
    held = select(workers.c.device, func.count()).join_from(jobs, workers, workers.c.id == jobs.c.owner)
    held = held.where(jobs.c.state == JobState.RUNNING).group_by(workers.c.device)
    return {device: count for device, count in connection.execute(held).all()}  # noqa: C416 - as above


def _stored_bytes(connection: Connection) -> dict[str, int]:
    jobs, teachers, files = tables.jobs, tables.teachers, tables.artifacts
    last = select(jobs.c.checkpoint_sha256.label("sha256"), jobs.c.checkpoint_bytes.label("bytes"))
    previous = select(jobs.c.previous_checkpoint_sha256, jobs.c.previous_checkpoint_bytes)
    kinds = {
        "teacher": select(teachers.c.id.label("sha256"), teachers.c.bytes).where(has_bytes(None)),
        "artifact": select(files.c.sha256, files.c.bytes).distinct(),
        "checkpoint": union(
            last.where(jobs.c.checkpoint_bytes.is_not(None)),
            previous.where(jobs.c.previous_checkpoint_bytes.is_not(None)),
        ),
    }
    sums = {kind: select(func.coalesce(func.sum(kept.subquery().c.bytes), 0)) for kind, kept in kinds.items()}
    return {kind: int(connection.execute(total).scalar_one()) for kind, total in sums.items()}


def _queues(connection: Connection) -> dict[tuple[int, DeviceClass], Queue]:
    """Return the queues of the spec versions that this version reads, and those of newer versions that have jobs."""
    jobs = tables.jobs
    key = (jobs.c.spec_version, jobs.c.device_class)
    due = select(*key, func.count(), elapsed_seconds(now(), func.min(jobs.c.not_before)))
    due = due.where(jobs.c.state == JobState.QUEUED, jobs.c.not_before <= now()).group_by(*key)
    queues = dict.fromkeys(itertools.product(range(1, SPEC_VERSION + 1), DeviceClass), Queue())
    for version, wanted, depth, seconds in connection.execute(due):
        queues[version, DeviceClass(wanted)] = Queue(depth, seconds)
    return queues
