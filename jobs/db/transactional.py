"""Functions over a connection or a transaction become methods, so that a signature and its docstring are written once.

class Store:
    live_workers = on_snapshot(workers.living)  # store.live_workers(60.0)
    worker_gone = in_transaction(workers.gone)  # store.worker_gone("w")
    claim = in_context_transaction(leases.claim)  # leases.claim(transaction, store._context, ...)

Each method raises LedgerUnavailable if the database does not answer.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

from jobs.db.database import Database, Transaction

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)


class HasDatabase(Protocol):
    """What an object needs to have such methods."""

    _database: Database


class HasContext(HasDatabase, Protocol[C_co]):
    """What an object needs to have methods of functions that take a context."""

    @property
    def _context(self) -> C_co: ...


class HasTenant(HasDatabase, Protocol):
    """What an object needs to have methods of functions that take the tenant whose rows are visible."""

    @property
    def _tenant(self) -> str | None: ...


def on_snapshot(function: Callable[Concatenate[Connection, P], R]) -> Callable[Concatenate[HasDatabase, P], R]:
    """Return a method that calls `function` with a connection that reads one snapshot of the database."""

    @wraps(function)
    def method(self: HasDatabase, /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._database.read(lambda connection: function(connection, *arguments, **options))

    return method


def in_transaction(function: Callable[Concatenate[Transaction, P], R]) -> Callable[Concatenate[HasDatabase, P], R]:
    """Return a method that calls `function` with a write transaction, and commits it."""

    @wraps(function)
    def method(self: HasDatabase, /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._database.write(lambda transaction: function(transaction, *arguments, **options))

    return method


def on_tenant_snapshot(
    function: Callable[Concatenate[Connection, str | None, P], R],
) -> Callable[Concatenate[HasTenant, P], R]:
    """Return a method like one of `on_snapshot` that also passes the object's tenant."""

    @wraps(function)
    def method(self: HasTenant, /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._database.read(lambda connection: function(connection, self._tenant, *arguments, **options))

    return method


def on_context_snapshot(
    function: Callable[Concatenate[Connection, C, P], R],
) -> Callable[Concatenate[HasContext[C], P], R]:
    """Return a method like one of `on_snapshot` that also passes the object's context."""

    @wraps(function)
    def method(self: HasContext[C], /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._database.read(lambda connection: function(connection, self._context, *arguments, **options))

    return method


def in_context_transaction(
    function: Callable[Concatenate[Transaction, C, P], R],
) -> Callable[Concatenate[HasContext[C], P], R]:
    """Return a method like one of `in_transaction` that also passes the object's context."""

    @wraps(function)
    def method(self: HasContext[C], /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._database.write(lambda transaction: function(transaction, self._context, *arguments, **options))

    return method


def repeated_after(error: type[Exception], method: Callable[P, R]) -> Callable[P, R]:
    """Return a method that calls `method` again, in a new transaction, whenever it raises `error`."""

    @wraps(method)
    def repeating(*arguments: P.args, **options: P.kwargs) -> R:
        while True:
            try:
                return method(*arguments, **options)
            except error:
                continue

    return repeating
