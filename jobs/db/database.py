"""Connections and transactions: engine settings, retries, and commits whose reply was lost.

No exception of SQLAlchemy leaves the ledger: an error that a retry cannot cure becomes `LedgerUnavailable` or
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
    """Runs functions in transactions, and repeats a transaction if that is safe."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self.dialect = self._engine.dialect.name
        self._writer = self._engine.execution_options(dfkd_writes=True)
        self._reader = self._engine.execution_options(dfkd_snapshot=True)
        self._tenant: str | None = None
        self._nowait_reader = _nowait_engine(url) if self.dialect == "sqlite" else None

    def of(self, tenant: str) -> "Database":
        """Return the same database, restricted to the rows of one tenant; ALL_TENANTS gives all rows.

        PostgreSQL hides and refuses all other rows. Without a tenant it shows no rows (`jobs.db.row_security`).
        """
        database = copy(self)
        database._tenant = tenant
        return database

    @contextmanager
    def connected(self, *, writes: bool) -> Iterator[Connection]:
        """Yield a connection for one transaction of this tenant. The caller commits. Prefer `read` and `write`."""
        with (self._writer if writes else self._reader).connect() as connection:
            set_tenant(connection, self._tenant)
            yield connection

    def upgrade(self, revisions: Revisions) -> None:
        """Bring the tables to the newest revision. Several processes may call this at the same time.

        Raises:
            SchemaRefused: this release cannot work with the tables.
        """
        if self.read(revisions.is_usable):
            return

        def work(transaction: Transaction) -> None:
            with self._alone(transaction.connection):
                revisions.upgrade(transaction.connection)

        self.write(work)

    def revision(self) -> str | None:
        """Return the revision of the tables; None if there are no tables."""
        return self.read(current)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the database.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.connected(writes=False) as connection:
                    found = work(connection)
                    connection.commit()  # after a rollback psycopg would forget what it has prepared
                    return found
            except (DBAPIError, PoolTimeout) as error:
                _raise_unless_transient(error, attempt)
        raise AssertionError("unreachable")

    def read_nowait(self, work: Callable[[Connection], T]) -> T | None:
        """Run `work`, which reads a few rows by their keys, on one snapshot without waiting; None if that fails.

        An event loop may call this, because with SQLite such a read is cheaper than a thread. For any other database
        the result is None. The caller falls back to `read`, which reports failures.
        """
        if self._nowait_reader is None:
            return None
        try:
            with self._nowait_reader.connect() as connection:
                return work(connection)
        except (DBAPIError, PoolTimeout):
            return None

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one write transaction.

        After a deadlock, a lock timeout or a lost connection the whole transaction is repeated. If the reply to the
        commit was lost, the history shows whether the commit took place, and a transaction that did is not repeated.

        Raises:
            LedgerUnavailable: the database does not answer.
            StorageFull: the database has no space left.
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
        """Close all connections."""
        self._engine.dispose()
        if self._nowait_reader is not None:
            self._nowait_reader.dispose()

    def _alone(self, connection: Connection) -> AbstractContextManager[None]:
        """Keep other processes from changing the tables. SQLite needs no lock: it has one writer at a time."""
        if self.dialect == "sqlite":
            return nullcontext()
        from jobs.db.postgres import changing_tables

        return changing_tables(connection)


def dialect_insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return the INSERT of this dialect, which supports ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _took_place(connection: Connection, transaction: Transaction) -> bool:
    """True if the history has an event of `transaction`, so its commit took place."""
    mark = select(events.c.seq).where(
        events.c.job_number == transaction.job_number, events.c.write_id == transaction.write_id
    )
    return connection.execute(mark.limit(1)).first() is not None


def _raise_unless_transient(error: DBAPIError | PoolTimeout, attempt: int) -> None:
    """Return after a short wait if another attempt makes sense; otherwise raise an exception of the ledger."""
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


def _nowait_engine(url: str) -> Engine:
    """Return an engine with one read-only connection, which never waits for a lock or for a free connection."""
    engine = create_engine(url, connect_args={"timeout": 0.0}, pool_size=1, max_overflow=0, pool_timeout=0)
    event.listen(engine, "connect", _prepare_nowait)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_nowait(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON").close()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    durable = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
    for pragma in (*durable, "secure_delete=ON"):  # deleted rows are overwritten in the file
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the beginning of a write transaction. SQLite cannot wait when it upgrades a read lock."""
    writes = connection.get_execution_options().get("dfkd_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
