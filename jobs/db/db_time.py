"""Database time. Leases, back-off and timestamps are compared by the database's clock, never by a host's.

PostgreSQL keeps `timestamptz`; SQLite keeps text like 2026-01-31T12:00:00.000Z, which sorts as time does.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Dialect, Float, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

DAY_SECONDS = 86400.0


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both databases, to the millisecond on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Text on SQLite, timestamptz elsewhere."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse naive datetimes; write SQLite's text."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the ledger")
        if dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Aware UTC, whatever the session's time zone."""
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if dialect.name == "sqlite" else value
        return moment.astimezone(UTC)


class _Now(FunctionElement[datetime]):
    """The database's time, moved by a number of seconds."""

    type = UtcTime()
    name = "dfkd_now"
    inherit_cache = True


class _Elapsed(FunctionElement[float]):
    """Seconds from the second moment to the first, never negative."""

    type = Float()
    name = "dfkd_elapsed"
    inherit_cache = True


class _Today(FunctionElement[datetime]):
    """The beginning of the current day (UTC) by the database's clock."""

    type = UtcTime()
    name = "dfkd_today"
    inherit_cache = True


def now(offset_seconds: float = 0.0) -> ColumnElement[datetime]:
    """Return the database's time, moved by `offset_seconds`."""
    return _Now(literal(float(offset_seconds), Float))


def today() -> ColumnElement[datetime]:
    """Return the beginning of the current day (UTC) by the database's clock."""
    return _Today()


def elapsed_seconds(until: ColumnElement[Any], since: ColumnElement[Any]) -> ColumnElement[float]:
    """Seconds from `since` to `until`; 0 if the clock was set back in between."""
    return _Elapsed(until, since)


@compiles(_Now, "postgresql")
def _now_postgresql(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    offset = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() + make_interval(secs => {offset}))"


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    offset = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('%+.3f seconds', {offset}))"


@compiles(_Today, "postgresql")
def _today_postgresql(_element: _Today, _compiler: SQLCompiler, **_options: Any) -> str:
    return "date_trunc('day', clock_timestamp(), 'UTC')"


@compiles(_Today, "sqlite")
def _today_sqlite(_element: _Today, _compiler: SQLCompiler, **_options: Any) -> str:
    return "strftime('%Y-%m-%dT00:00:00.000Z', 'now')"


@compiles(_Elapsed, "postgresql")
def _elapsed_postgresql(element: _Elapsed, compiler: SQLCompiler, **options: Any) -> str:
    until, since = (compiler.process(clause, **options) for clause in element.clauses)
    return f"greatest(0, extract(epoch from ({until} - {since})))::float8"


@compiles(_Elapsed, "sqlite")
def _elapsed_sqlite(element: _Elapsed, compiler: SQLCompiler, **options: Any) -> str:
    until, since = (compiler.process(clause, **options) for clause in element.clauses)
    return f"max(0.0, (julianday({until}) - julianday({since})) * 86400.0)"
