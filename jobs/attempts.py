"""The end of an attempt: what leaving `running` does, whatever comes after."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, literal

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.db.db_time import UtcTime, elapsed_seconds, now
from jobs.db.mapping import Occurrence, change
from jobs.takeover import held
from jobs.usage import charge


def end_attempt(
    transaction: Transaction,
    row: Row[Any],
    values: dict[str, Any],
    occurrences: Sequence[Occurrence] = (),
    *,
    until: datetime | None = None,
) -> Row[Any] | None:
    """Change a locked row that runs into one that does not; its tenant is charged. None when fenced out.

    `until`: when the attempt really ended, where that is not now.
    """
    spent = elapsed_seconds(now() if until is None else literal(until, UtcTime()), tables.jobs.c.claimed_at)
    left = {
        "owner": None,
        "lease_until": None,
        "claimed_at": None,
        "pause_requested_at": None,
        "running_seconds": tables.jobs.c.running_seconds + spent,
    }
    changed = change(transaction, held(row.id, row.fence), left | values, occurrences)
    if changed is not None:
        charge(transaction, row, until)
    return changed
