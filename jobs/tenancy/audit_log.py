"""The audit log: who did what to which job or teacher, and when. Lines are never changed; old lines are removed.

If the action writes to the ledger, its line is written in the same transaction, so neither exists without the other. A
line outlives the job that it names. It holds names and ids, and nothing that the caller sent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select

from jobs.db import tables
from jobs.db.database import Database, Transaction
from jobs.db.db_time import now
from jobs.identity import Caller

PAGE = 500

_audit = tables.audit


class AuditAction(StrEnum):
    """The action that a line records."""

    UPLOADED = "uploaded"
    SUBMITTED = "submitted"
    RETRIED = "retried"
    CONTINUED = "continued"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    DOWNLOADED = "downloaded"
    DELETED = "deleted"


class AuditOutcome(StrEnum):
    """The outcome of an action. A refused request writes no line."""

    DONE = "done"
    UNCHANGED = "unchanged"  # the job was already in the requested state
    BEGUN = "begun"  # the download of a file began; how much of it arrived is not known


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log."""

    number: int
    at: datetime  # database time
    tenant: str
    key_id: str | None
    act: AuditAction
    object_id: str  # of the job or the teacher
    # Of a job: its teacher, or the job it comes from, or the file that is fetched. Of a teacher: the job it went with.
    detail: str | None
    outcome: AuditOutcome
    request_id: str | None


def append(
    transaction: Transaction,
    caller: Caller,
    act: AuditAction,
    object_id: str,
    *,
    detail: str | None = None,
    outcome: AuditOutcome = AuditOutcome.DONE,
) -> None:
    """Add a line."""
    who = {"tenant": caller.tenant, "key_id": caller.key_id, "request_id": caller.request_id}
    what = {"act": act, "object_id": object_id, "detail": detail, "outcome": outcome}
    transaction.connection.execute(insert(_audit).values(at=now(), **who, **what))


class AuditLog:
    """The lines of the audit log (`Store.audit_log`). Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(
        self, *, tenant: str | None = None, object_id: str | None = None, since: datetime | None = None
    ) -> Iterator[AuditEntry]:
        """Yield the lines, oldest first; on request only those of one tenant, about one object, or from `since` on."""
        wanted = select(_audit).order_by(_audit.c.number).limit(PAGE)
        if tenant is not None:
            wanted = wanted.where(_audit.c.tenant == tenant)
        if object_id is not None:
            wanted = wanted.where(_audit.c.object_id == object_id)
        if since is not None:
            wanted = wanted.where(_audit.c.at >= since)
        lines = self._page(wanted)
        while lines:
            yield from lines
            lines = self._page(wanted.where(_audit.c.number > lines[-1].number))

    def _page(self, wanted: Select[Any]) -> list[AuditEntry]:
        return self._database.read(lambda connection: [_entry_from_row(row) for row in connection.execute(wanted)])

    def delete_old(self, max_age_seconds: float) -> int:
        """Remove lines that are older than `max_age_seconds`; return their number."""
        old = delete(_audit).where(_audit.c.at < now(-max_age_seconds))
        return self._database.write(lambda t: t.connection.execute(old).rowcount)


def _entry_from_row(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**{**row._mapping, "act": AuditAction(row.act), "outcome": AuditOutcome(row.outcome)})
