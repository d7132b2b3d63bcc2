"""PostgreSQL with a limit on every wait. Imported only where PostgreSQL is used: its driver is an extra.

The server ends a statement or a wait for a lock that takes too long. A server that hangs ends nothing, so the driver's
own wait has a limit too: a supervisor that waits for a heartbeat's answer for ever could not give up its lease.

We say BEGIN ourselves, so that the tenant who is asking goes with it in one message.
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
    """The server took the request and did not answer in time. Asking again at once would only wait again."""

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
    """An engine whose connections give up soon."""
    limits = {"connect_timeout": 2, "tcp_user_timeout": 2500, "options": _OPTIONS, "autocommit": True}
    engine = create_engine(url, pool_size=20, max_overflow=0, pool_timeout=3, connect_args=limits)
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "do_execute_no_params", _execute_unprepared)
    return engine


@contextmanager
def changing_tables(connection: Connection) -> Iterator[None]:
    """Within an open transaction: wait until nobody else changes the tables, then have CHANGE_SECONDS for it.

    The wait for a table itself stays short: whoever waits for one holds up everybody behind.
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
    """A snapshot for who only reads; the tenant where there is one."""
    snapshot = connection.get_execution_options().get("dfkd_snapshot", False)
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ" if snapshot else "BEGIN"
    tenant = tenant_of(connection)
    message = begin if tenant is None else f"{begin}; {setting(tenant)}"
    connection.exec_driver_sql(message, execution_options=UNPREPARED)


def _execute_unprepared(cursor: psycopg.Cursor[Any], statement: str, _context: Any) -> bool:
    """Several statements in one message cannot be prepared, which the driver does with what it sends often."""
    cursor.execute(statement.encode(), prepare=False)
    return True
