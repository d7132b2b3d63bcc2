"""Workers: which are alive, by their heartbeats, how fast they are, and which queued jobs none of them serves.

The row of a worker that has gone stays if it holds the newest measurement of its class, so that there is an estimate
for jobs that come while no worker runs.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, or_, select, update

from dfkd_core.planning.worker_speed import SPEED_VERSION, WorkerSpeed
from jobs.db import tables
from jobs.db.database import Transaction, dialect_insert
from jobs.db.db_time import now
from jobs.db.mapping import worker_from_row
from jobs.devices import DeviceClass, class_of, served_by
from jobs.models import JobState, Worker, WorkerClass

ROW_SECONDS = 86400.0  # a row older than this is deleted: its worker ended without removing it

_workers = tables.workers


def seen(
    transaction: Transaction,
    worker_id: str,
    *,
    host: str,
    slots: int,
    device: str,
    speed: WorkerSpeed | None = None,
    memory_bytes: int | None = None,
) -> None:
    """Record the heartbeat of a worker process, and delete the rows of workers without one for a day.

    `speed` is what the worker measured, and `memory_bytes` is what one of its runners may use.
    """
    values: dict[str, Any] = {"host": host, "slots": slots, "device": device, "names_tenants": True, "gone_at": None}
    if speed is not None:
        values |= {"worker_class": speed.worker_class, "speed": speed.model_dump_json(), "memory_bytes": memory_bytes}
    statement = dialect_insert(transaction.connection, _workers)
    statement = statement.values(id=worker_id, **values, started_at=now(), seen_at=now())
    statement = statement.on_conflict_do_update(index_elements=[_workers.c.id], set_={**values, "seen_at": now()})
    transaction.connection.execute(statement)
    transaction.connection.execute(delete(_workers).where(_workers.c.seen_at < now(-ROW_SECONDS), _is_superseded()))


def gone(transaction: Transaction, worker_id: str) -> None:
    """Record that a worker process ends. Its row goes, unless it holds the newest measurement of its class."""
    mine = _workers.c.id == worker_id
    transaction.connection.execute(update(_workers).where(mine).values(gone_at=now()))
    transaction.connection.execute(delete(_workers).where(_workers.c.gone_at.is_not(None), _is_superseded()))


def _is_superseded() -> ColumnElement[bool]:
    """Return the condition that a row holds no measurement, or that there is a newer one of the same class."""
    newer = _workers.alias("newer")
    later = or_(
        newer.c.seen_at > _workers.c.seen_at, and_(newer.c.seen_at == _workers.c.seen_at, newer.c.id > _workers.c.id)
    )
    better = exists().where(newer.c.worker_class == _workers.c.worker_class, newer.c.speed.is_not(None), later)
    return or_(_workers.c.speed.is_(None), better)


def living(connection: Connection, max_age_seconds: float) -> Sequence[Worker]:
    """Return the workers with a heartbeat in the last `max_age_seconds`, the oldest worker first."""
    found = select(_workers).where(_workers.c.seen_at >= now(-max_age_seconds), _workers.c.gone_at.is_(None))
    return [worker_from_row(row) for row in connection.execute(found.order_by(_workers.c.started_at, _workers.c.id))]


def classes(connection: Connection, max_age_seconds: float) -> Sequence[WorkerClass]:
    """Every known class of workers by name. Of a class without a living worker, the newest measurement counts."""
    alive = and_(_workers.c.gone_at.is_(None), _workers.c.seen_at >= now(-max_age_seconds)).label("alive")
    measured = select(_workers, alive).where(_workers.c.speed.is_not(None), _workers.c.worker_class.is_not(None))
    rows = connection.execute(measured.order_by(_workers.c.worker_class, _workers.c.seen_at.desc(), _workers.c.id))
    read = [(row, speed) for row in rows if (speed := _speed_of(row)) is not None]
    return [_class(name, list(group)) for name, group in groupby(read, key=lambda pair: str(pair[0].worker_class))]


def _class(name: str, found: list[tuple[Row[Any], WorkerSpeed]]) -> WorkerClass:
    """Return the class of these workers; the newest is first. The slowest living one decides on the time."""
    alive = [(row, speed) for row, speed in found if row.alive] or found[:1]
    limits = [row.memory_bytes for row, _ in alive]
    return WorkerClass(
        name=name,
        device_class=class_of(alive[0][0].device),
        speed=min((speed for _, speed in alive), key=lambda speed: speed.kernels["conv-64"].forward),
        memory_bytes=None if None in limits else max(limits),
        slots=sum(row.slots for row, _ in alive if row.alive) or 1,
    )


def _speed_of(row: Row[Any]) -> WorkerSpeed | None:
    """Return the measurement in a row; None if another version of the benchmark made it."""
    try:
        speed = WorkerSpeed.model_validate_json(row.speed)
    except ValidationError:
        return None
    return speed if speed.version == SPEED_VERSION else None


def unserved(connection: Connection, max_age_seconds: float) -> Sequence[DeviceClass]:
    """Return the device classes for which jobs are queued and which no live worker serves."""
    there = {class_of(worker.device) for worker in living(connection, max_age_seconds)}
    served = {wanted for device_class in there for wanted in served_by(device_class)}
    return [wanted for wanted in _queued_classes(connection) if wanted not in served]


def _queued_classes(connection: Connection) -> list[DeviceClass]:
    jobs = tables.jobs
    queued = jobs.c.state == JobState.QUEUED
    waiting = [exists().where(queued, jobs.c.device_class == wanted).label(wanted) for wanted in DeviceClass]
    found = connection.execute(select(*waiting)).one()
    return [wanted for wanted, there in zip(DeviceClass, found, strict=True) if there]
