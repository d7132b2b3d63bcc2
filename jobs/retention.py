"""How long the ledger refers to the files of a finished job: the SQL behind `Store.expirable` and `Store.expire`.

Of a finished job only the last checkpoint is of use. That and the job's files are kept for the retention period; then
the row forgets them. Downloads of a succeeded job without files answer 410. What no row refers to, the janitor removes.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, or_, select, union

from jobs import tables
from jobs.clock import now
from jobs.database import Transaction
from jobs.queries import locked_row
from jobs.rows import change
from jobs.schemas import TERMINAL
from jobs.teachers import has_bytes

BATCH = 500

_jobs, _artifacts = tables.jobs, tables.artifacts


@dataclass(frozen=True, slots=True)
class Expiry:
    """What the ledger will refer to no longer."""

    job_id: str
    files: bool  # the last checkpoint too; otherwise only the checkpoint before the last


def expirable(connection: Connection, retention_seconds: float) -> list[Expiry]:
    """Up to BATCH finished jobs that hold on to more than they should, oldest first."""
    over = _over(retention_seconds)
    statement = select(_jobs.c.id, over.label("over")).where(_finished(), or_(over, _superseded()))
    return [
        Expiry(row.id, files=bool(row.over))
        for row in connection.execute(statement.order_by(_jobs.c.number).limit(BATCH))
    ]


def expire(transaction: Transaction, job_id: str, retention_seconds: float) -> None:
    """Forget what `expirable` names. JobNotFound."""
    row = locked_row(transaction.connection, None, job_id)
    guard = [_jobs.c.number == row.number, _finished()]
    if not transaction.connection.execute(select(_jobs.c.id).where(*guard, _over(retention_seconds))).first():
        change(transaction, [*guard, _superseded()], {"previous_checkpoint_sha256": None})
        return
    names = _drop_files(transaction.connection, row)
    nothing = {"checkpoint_sha256": None, "previous_checkpoint_sha256": None}
    change(transaction, guard, nothing, [("expired", {"artifacts": names})])


def references(connection: Connection) -> set[str]:
    """Every digest that a teacher, a published file or a checkpoint is kept under."""
    columns = (
        _artifacts.c.sha256,
        _jobs.c.checkpoint_sha256,
        _jobs.c.previous_checkpoint_sha256,
    )
    kept = [select(column).where(column.is_not(None)) for column in columns]
    found = connection.execute(union(select(tables.teachers.c.id).where(has_bytes(None)), *kept))
    return set(found.scalars())


def _drop_files(connection: Connection, row: Row[Any]) -> list[str]:
    dropped = delete(_artifacts).where(_artifacts.c.job_number == row.number).returning(_artifacts.c.name)
    return sorted(connection.execute(dropped).scalars())


def _finished() -> ColumnElement[bool]:
    return _jobs.c.state.in_(TERMINAL)


def _superseded() -> ColumnElement[bool]:
    return _jobs.c.previous_checkpoint_sha256.is_not(None)


def _over(retention_seconds: float) -> ColumnElement[bool]:
    """The retention period is over, and there is something left of it."""
    held = exists().where(_artifacts.c.job_number == _jobs.c.number)
    return and_(_jobs.c.finished_at < now(-retention_seconds), or_(_jobs.c.checkpoint_sha256.is_not(None), held))
