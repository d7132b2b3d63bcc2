"""Makes database time pass for one job, without waiting; and makes its spec one of another version."""

from sqlalchemy import update

from jobs import tables
from jobs.clock import now
from jobs.schemas import SPEC_VERSION
from jobs.store import Store


def expire_lease(store: Store, job_id: str) -> None:
    """As if the worker had been silent for longer than its lease."""
    _move(store, job_id, "lease_until")


def end_pauses(store: Store, job_id: str) -> None:
    """As if back-off and the pause between bells were over."""
    _move(store, job_id, "not_before", "ring_at")


def lengthen_pauses(store: Store, job_id: str) -> None:
    """As if its bell had been rung in vain for long: half a minute between two, which no test outlasts."""
    statement = update(tables.jobs).where(tables.jobs.c.id == job_id).values(rings=10)
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def age_request(store: Store, key: str, *columns: str) -> None:
    """As if the lease of a request's key, or the day for which its answer is kept, were over."""
    statement = update(tables.requests).where(tables.requests.c.key == key).values(dict.fromkeys(columns, now(-1.0)))
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def age_spec(store: Store, job_id: str, spec: str, *, version: int = SPEC_VERSION) -> None:
    """As if a version with other options had stored this text as the job's spec."""
    statement = update(tables.jobs).where(tables.jobs.c.id == job_id).values(spec=spec, spec_version=version)
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def _move(store: Store, job_id: str, *columns: str) -> None:
    statement = update(tables.jobs).where(tables.jobs.c.id == job_id).values(dict.fromkeys(columns, now(-1.0)))
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())
