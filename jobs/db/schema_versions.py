"""The revisions of the tables: which one a database has, whether this release can use it, how to upgrade it.

A revision is called RELEASE_STEP, such as `1_2`: the second change of the first release that changed the tables. A
change adds columns (nullable or with a default), tables, indices, and policies that do not concern older versions, and
takes nothing away before the release after the next. A release therefore works on tables of its own release and of the
next one, and workers may be replaced one by one.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, inspect

from jobs.errors import SchemaRefused

log = logging.getLogger(__name__)

BASELINE = "0_1"
VERSIONS = Path(__file__).parents[1] / "migrations" / "versions"
_NAME = re.compile(r"(\d{1,6})_\d{1,6}")


class Revisions:
    """The revisions that this version knows."""

    def __init__(self, *versions: Path) -> None:
        places: Sequence[Path] = versions or (VERSIONS,)
        self._scripts = ScriptDirectory(VERSIONS.parent, version_locations=places)
        self._known = {script.revision for script in self._scripts.walk_revisions()}
        head = self._scripts.get_current_head()
        assert head is not None
        self.head = head

    def is_usable(self, connection: Connection) -> bool:
        """Return whether there is nothing to change; SchemaRefused where this version cannot work on the tables."""
        found = current(connection)
        if found is None or found in self._known:
            return found == self.head
        ahead = _release(found) - _release(self.head)
        if ahead not in {0, 1}:
            raise SchemaRefused(found, self.head)
        log.warning("the tables are of a newer version", extra={"found": found, "known": self.head})
        return True

    @property
    def names(self) -> list[str]:
        """The names of all revisions, the oldest first."""
        return [script.revision for script in self._after(None, self.head)]

    def upgrade(self, connection: Connection, *, to: str | None = None) -> None:
        """Bring the tables to a revision (the newest), within the transaction of `connection`; SchemaRefused.

        Tables from before there were revisions are taken for the baseline.
        """
        if self.is_usable(connection):
            return
        found, goal = current(connection), to or self.head
        context = MigrationContext.configure(connection)
        if found is not None:
            context.stamp(self._scripts, found)
        with Operations.context(context):
            for script in self._after(found, goal):
                script.module.upgrade()
                context.stamp(self._scripts, script.revision)
        log.info("the tables were changed", extra={"before": found, "now": goal})

    def _after(self, found: str | None, goal: str) -> list[Script]:
        return list(self._scripts.iterate_revisions(goal, found or "base"))[::-1]


def current(connection: Connection) -> str | None:
    """Return the revision of a database's tables; None if there are no tables."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None and inspect(connection).has_table("jobs"):
        return BASELINE
    return revision


def _release(revision: str) -> int:
    found = _NAME.fullmatch(revision)
    return int(found[1]) if found else -1
