"""Workers: which are alive, by their heartbeats, and which queued jobs none of them serves."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, select

from jobs.db import tables
from jobs.db.database import Transaction, dialect_insert
from jobs.db.db_time import now
from jobs.db.mapping import worker_from_row
from jobs.devices import DeviceClass, class_of, served_by
from jobs.models import JobState, Worker

ROW_SECONDS = 86400.0  # a row older than this is deleted: its worker ended without removing it

_workers = tables.workers


def seen(transaction: Transaction, worker_id: str, *, host: str, slots: int, device: str) -> None:
    """Record the heartbeat of a worker process, and delete the rows of workers without one for a day."""
    values = {"id": worker_id, "host": host, "slots": slots, "device": device, "names_tenants": True}
    statement = dialect_insert(transaction.connection, _workers)
    statement = statement.values(**values, started_at=now(), seen_at=now())
    statement = statement.on_conflict_do_update(index_elements=[_workers.c.id], set_={**values, "seen_at": now()})
    transaction.connection.execute(statement)
    transaction.connection.execute(delete(_workers).where(_workers.c.seen_at < now(-ROW_SECONDS)))


def gone(transaction: Transaction, worker_id: str) -> None:
    """Delete the row of a worker process that ends."""
    transaction.connection.execute(delete(_workers).where(_workers.c.id == worker_id))


def living(connection: Connection, max_age_seconds: float) -> Sequence[Worker]:
    """Return the workers with a heartbeat in the last `max_age_seconds`, the oldest worker first."""
    found = select(_workers).where(_workers.c.seen_at >= now(-max_age_seconds))
    return [worker_from_row(row) for row in connection.execute(found.order_by(_workers.c.started_at, _workers.c.id))]


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
