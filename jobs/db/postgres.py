"""PostgreSQL with a limit on every wait. Only code that uses PostgreSQL imports this: its driver is an extra.

The server ends a statement or a wait for a lock that takes too long. A server that hangs cannot do this, so the driver
limits its waits too; otherwise a supervisor could wait for a heartbeat's answer for ever and never give up its lease.

We send BEGIN ourselves, so that it and the tenant of the transaction go in one message.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Connection, Engine, create_engine, event

from jobs.db.row_security import UNPREPARED, setting, tenant_of

ANSWER_SECONDS = 2.5
CHANGE_SECONDS = 600  # for a change of the tables, and for waiting until another process has made it
_SCHEMA_LOCK = 0x64666B64  # advisory: only one process at a time changes the tables
_OPTIONS = "-c statement_timeout=2000 -c lock_timeout=1500 -c idle_in_transaction_session_timeout=15000 -c timezone=UTC"


class NoAnswer(errors.OperationalError):
    """The server took the request and did not answer in time. It makes no sense to repeat the request at once."""

    ask_again = False


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that closes itself when the server is silent for `answer_seconds`."""

    answer_seconds: float = ANSWER_SECONDS

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server; NoAnswer when it is silent for too long."""
        start = time.monotonic()
        try:
            return super().wait(gen, interval, timeout=self.answer_seconds if timeout is None else timeout)
        except errors.OperationalError as error:
            if timeout is not None or error.sqlstate or time.monotonic() - start < self.answer_seconds:
                raise
            self.pgconn.finish()
            raise NoAnswer(f"no answer in {self.answer_seconds} s") from error


def postgres_engine(url: str) -> Engine:
    """Return an engine whose connections limit every wait."""
    limits = {"connect_timeout": 2, "tcp_user_timeout": 2500, "options": _OPTIONS, "autocommit": True}
    engine = create_engine(url, pool_size=20, max_overflow=0, pool_timeout=3, connect_args=limits)
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "do_execute_no_params", _execute_unprepared)
    return engine


@contextmanager
def changing_tables(connection: Connection) -> Iterator[None]:
    """Within an open transaction, wait until no other process changes the tables, and allow CHANGE_SECONDS for changes.

    The limit of a wait for the lock of one table stays short, because all later queries wait behind this wait.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, ImpatientConnection)
    driver.answer_seconds = CHANGE_SECONDS
    try:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{CHANGE_SECONDS}s'")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{CHANGE_SECONDS}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        connection.exec_driver_sql("SET LOCAL lock_timeout = '1500ms'")
        yield
    finally:
        driver.answer_seconds = ANSWER_SECONDS


def _connect(_dialect: Any, _record: Any, arguments: list[Any], keywords: dict[str, Any]) -> psycopg.Connection[Any]:
    return ImpatientConnection.connect(*arguments, **keywords)


def _begin(connection: Connection) -> None:
    """Begin a transaction: as a snapshot if it only reads, and with its tenant if it has one."""
    snapshot = connection.get_execution_options().get("dfkd_snapshot", False)
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ" if snapshot else "BEGIN"
    tenant = tenant_of(connection)
    message = begin if tenant is None else f"{begin}; {setting(tenant)}"
    connection.exec_driver_sql(message, execution_options=UNPREPARED)


def _execute_unprepared(cursor: psycopg.Cursor[Any], statement: str, _context: Any) -> bool:
    """Execute without preparing the message: PostgreSQL cannot prepare a message of several statements."""
    cursor.execute(statement.encode(), prepare=False)
    return True
