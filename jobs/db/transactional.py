"""Functions over a connection or a transaction become methods, so that a signature and its docstring are written once.

class Store:
    live_workers = on_snapshot(workers.living)  # store.live_workers(60.0)
    worker_gone = in_transaction(workers.gone)  # store.worker_gone("w")
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

from jobs.db.database import Database, Transaction

P = ParamSpec("P")
R = TypeVar("R")


class HasDatabase(Protocol):
    """What an object needs to have such methods."""

    _database: Database


def on_snapshot(function: Callable[Concatenate[Connection, P], R]) -> Callable[Concatenate[HasDatabase, P], R]:
    """A method that calls `function` with a connection that reads one snapshot of the database.

    Raises:
        LedgerUnavailable: The database does not answer.
    """

    @wraps(function)
    def method(self: HasDatabase, /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._database.read(lambda connection: function(connection, *arguments, **options))

    return method


def in_transaction(function: Callable[Concatenate[Transaction, P], R]) -> Callable[Concatenate[HasDatabase, P], R]:
    """A method that calls `function` with a write transaction, and commits it.

    Raises:
        LedgerUnavailable: The database does not answer.
    """

    @wraps(function)
    def method(self: HasDatabase, /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._database.write(lambda transaction: function(transaction, *arguments, **options))

    return method
