"""Move the database time of one job or teacher without waiting, and give a spec another version."""

from sqlalchemy import insert, select, update

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import now, today
from jobs.models import SPEC_VERSION
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


def set_answer(store: Store, key: str, text: str) -> str:
    """Store `text` for a request's key, as a process of another version would; returns the text before."""
    condition = tables.requests.c.key == key

    def work(transaction: Transaction) -> str:
        before = transaction.connection.execute(select(tables.requests.c.answer).where(condition)).scalar_one()
        transaction.connection.execute(update(tables.requests).where(condition).values(answer=text))
        return str(before)

    return store._database.write(work)


def age_spec(store: Store, job_id: str, spec: str, *, version: int = SPEC_VERSION) -> None:
    """As if a version with other options had stored this text as the job's spec."""
    statement = update(tables.jobs).where(tables.jobs.c.id == job_id).values(spec=spec, spec_version=version)
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def age_claim(store: Store, job_id: str, seconds: float, *, silent_seconds: float = 0.0) -> None:
    """As if a running job had been claimed `seconds` ago, and had been renewed last `silent_seconds` ago."""
    values = {"claimed_at": now(-seconds), "heartbeat_at": now(-silent_seconds)}
    statement = update(tables.jobs).where(tables.jobs.c.id == job_id).values(values)
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def age_end(store: Store, job_id: str, seconds: float) -> None:
    """As if a finished job had finished so long ago."""
    statement = update(tables.jobs).where(tables.jobs.c.id == job_id).values(finished_at=now(-seconds))
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def age_teacher(store: Store, teacher_id: str, seconds: float, *, tenant: str = "default") -> None:
    """As if a tenant had sent a teacher so long ago."""
    held = tables.tenant_teachers
    one = update(held).where(held.c.teacher_id == teacher_id, held.c.tenant == tenant)
    aged = one.values(created_at=now(-seconds), used_at=now(-seconds))
    store._database.write(lambda transaction: transaction.connection.execute(aged).close())


def use_up(store: Store, tenant: str, seconds: float) -> None:
    """As if attempts of a tenant, all ended, had run for so long today."""
    values = {"tenant": tenant, "day": today(), "device_seconds": seconds}
    store._database.write(lambda t: t.connection.execute(insert(tables.usage).values(values)).close())


def end_day(store: Store) -> None:
    """As if what was used of device-seconds had been used yesterday."""
    statement = update(tables.usage).values(day=now(-86400.0))
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def age_key(store: Store, key_id: str, seconds: float) -> None:
    """As if an API key had been created so long ago."""
    statement = update(tables.api_keys).where(tables.api_keys.c.id == key_id).values(created_at=now(-seconds))
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def age_audit(store: Store, seconds: float) -> None:
    """As if all lines of the audit log were older by so much."""
    statement = update(tables.audit).values(at=now(-seconds))
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())


def _move(store: Store, job_id: str, *columns: str) -> None:
    statement = update(tables.jobs).where(tables.jobs.c.id == job_id).values(dict.fromkeys(columns, now(-1.0)))
    store._database.write(lambda transaction: transaction.connection.execute(statement).close())
