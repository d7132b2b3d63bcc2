"""Connections and transactions: engine settings, retries, and commits whose reply was lost.

Nothing of SQLAlchemy's exceptions leaves the ledger: what cannot be cured here becomes `LedgerUnavailable` or
`StorageFull`.
"""

import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobs.db.row_security import set_tenant
from jobs.db.schema_versions import Revisions, current
from jobs.db.tables import events
from jobs.errors import LedgerUnavailable, StorageFull

T = TypeVar("T")

ATTEMPTS = 3
_SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_POSTGRES_BUSY = {"40001", "40P01", "55P03"}  # serialization failure, deadlock, lock not available
_POSTGRES_GONE = {"57P01", "57P02", "57P03"}  # shut down, crashed, starting
_POSTGRES_FULL = {"53100"}


@dataclass(slots=True)
class Transaction:
    """One write transaction. `write_id` marks the events it appends."""

    connection: Connection
    write_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    job_number: int | None = None  # of a job to which it appended an event


class Database:
    """Runs pieces of work in transactions; retries what is safe to retry."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self.dialect = self._engine.dialect.name
        self._writer = self._engine.execution_options(dfkd_writes=True)
        self._reader = self._engine.execution_options(dfkd_snapshot=True)
        self._tenant: str | None = None
        self._glancer = _impatient_engine(url) if self.dialect == "sqlite" else None

    def of(self, tenant: str) -> "Database":
        """The same connections, for transactions of one tenant, or with ALL_TENANTS of all tenants.

        PostgreSQL hides and refuses all other rows; a database without a tenant shows none (`jobs.db.row_security`).
        """
        database = copy(self)
        database._tenant = tenant
        return database

    @contextmanager
    def connected(self, *, writes: bool) -> Iterator[Connection]:
        """A connection for one transaction of this tenant, which the caller commits. For what `read` and `write` do."""
        with (self._writer if writes else self._reader).connect() as connection:
            set_tenant(connection, self._tenant)
            yield connection

    def upgrade(self, revisions: Revisions) -> None:
        """Bring the tables to the newest revision; any number of processes may do this at once. SchemaRefused."""
        if self.read(revisions.is_usable):
            return

        def work(transaction: Transaction) -> None:
            with self._alone(transaction.connection):
                revisions.upgrade(transaction.connection)

        self.write(work)

    def revision(self) -> str | None:
        """The revision of the tables; None where there are none."""
        return self.read(current)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot; raise LedgerUnavailable when the database does not answer."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.connected(writes=False) as connection:
                    found = work(connection)
                    connection.commit()  # after a rollback psycopg would forget what it has prepared
                    return found
            except (DBAPIError, PoolTimeout) as error:
                _raise_unless_transient(error, attempt)
        raise AssertionError("unreachable")

    def glance(self, work: Callable[[Connection], T]) -> T | None:
        """Run `work`, which reads a few rows by their keys, on one snapshot; None where that would mean to wait.

        For an event loop: with SQLite a thread costs more than what it would do. A database elsewhere always makes one
        wait. Failures are for `read` to deal with.
        """
        if self._glancer is None:
            return None
        try:
            with self._glancer.connect() as connection:
                return work(connection)
        except (DBAPIError, PoolTimeout):
            return None

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one write transaction.

        A deadlock, a lock or a lost connection before the commit is tried again, the whole transaction. After a
        commit whose reply was lost the history is read first: what took place is not repeated.
        """
        doubtful: tuple[Transaction, T] | None = None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.connected(writes=True) as connection:
                    if doubtful is not None and _took_place(connection, doubtful[0]):
                        return doubtful[1]
                    transaction = Transaction(connection)
                    result = work(transaction)
                    doubtful = (transaction, result)
                    connection.commit()
                    return result
            except (DBAPIError, PoolTimeout) as error:
                _raise_unless_transient(error, attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()
        if self._glancer is not None:
            self._glancer.dispose()

    def _alone(self, connection: Connection) -> AbstractContextManager[None]:
        """Nobody else changes the tables; on SQLite a write transaction is alone anyway."""
        if self.dialect == "sqlite":
            return nullcontext()
        from jobs.db.postgres import changing_tables

        return changing_tables(connection)


def dialect_insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """The INSERT of this database: unlike the general one it can be told what to do ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _took_place(connection: Connection, transaction: Transaction) -> bool:
    """Whether the commit of `transaction` is in the history."""
    mark = select(events.c.seq).where(
        events.c.job_number == transaction.job_number, events.c.write_id == transaction.write_id
    )
    return connection.execute(mark.limit(1)).first() is not None


def _raise_unless_transient(error: DBAPIError | PoolTimeout, attempt: int) -> None:
    """Return after a short wait when trying again makes sense; else raise what the callers know."""
    if _is_full(error):
        raise StorageFull("the database has no space left") from error
    if isinstance(error, DBAPIError) and not isinstance(error, (OperationalError, InterfaceError)):
        if not _is_transient(error):
            raise error
    elif not _is_transient(error):
        raise LedgerUnavailable(f"the database does not answer: {_first_line(error)}") from error
    if attempt == ATTEMPTS:
        raise LedgerUnavailable(f"the database is not available: {_first_line(error)}") from error
    time.sleep(random.uniform(0.5, 1.5) * 0.02 * 4**attempt)  # noqa: S311 - jitter, not a secret


def _is_transient(error: DBAPIError | PoolTimeout) -> bool:
    if isinstance(error, (PoolTimeout, IntegrityError)) or not getattr(error.orig, "ask_again", True):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return (getattr(error.orig, "sqlite_errorcode", 0) & 0xFF) in _SQLITE_BUSY
    return getattr(error.orig, "sqlstate", None) in _POSTGRES_BUSY | _POSTGRES_GONE


def _is_full(error: DBAPIError | PoolTimeout) -> bool:
    orig = getattr(error, "orig", None)
    if isinstance(orig, sqlite3.Error):
        return (getattr(orig, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL
    return getattr(orig, "sqlstate", None) in _POSTGRES_FULL


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(url, parsed.database)
    from jobs.db.postgres import postgres_engine

    return postgres_engine(url)


def _sqlite_engine(url: str, path: str | None) -> Engine:
    if not path or path == ":memory:":
        raise ValueError("the ledger needs a file; several processes share it")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 5.0}, pool_size=10, max_overflow=10, pool_timeout=3)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _impatient_engine(url: str) -> Engine:
    """One connection that reads, and neither waits for a lock nor for its turn."""
    engine = create_engine(url, connect_args={"timeout": 0.0}, pool_size=1, max_overflow=0, pool_timeout=0)
    event.listen(engine, "connect", _prepare_glances)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_glances(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON").close()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    durable = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
    for pragma in (*durable, "secure_delete=ON"):  # what is deleted is overwritten, not only forgotten
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once: a read lock that is upgraded later fails whatever the timeout."""
    writes = connection.get_execution_options().get("dfkd_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
