"""`dfkd db`: the revision of the ledger's tables, and the way to the newest. Runs where the database can be reached."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dfkd.cli import display
from dfkd.cli.options import DataDir

if TYPE_CHECKING:
    from jobs.db.database import Database

app = typer.Typer(help="The tables of the ledger: their revision, and the way to the newest.", no_args_is_help=True)
out = display.console(stderr=False)
err = display.console(stderr=True)


@app.command()
def current(data_dir: DataDir = None) -> None:
    """Print the revision of the tables, and on standard error whether this version needs another."""
    with _opened_database(data_dir) as database:
        from jobs.db.schema_versions import Revisions

        found, revisions = database.revision(), Revisions()
        usable = database.read(revisions.is_usable)
    out.print(found or "none")
    if not usable:
        err.print(f"this version needs {revisions.head}: dfkd db upgrade")
    elif found != revisions.head:
        err.print(f"made by a newer version than this one, which knows {revisions.head}; it may go on")


@app.command()
def upgrade(data_dir: DataDir = None) -> None:
    """Bring the tables to the newest revision. API and worker do the same when they start."""
    with _opened_database(data_dir) as database:
        from jobs.db.schema_versions import Revisions

        before = database.revision()
        database.upgrade(Revisions())
        after = database.revision()
    out.print(f"{before or 'none'} -> {after}" if before != after else f"{after}")


@contextmanager
def _opened_database(data_dir: Path | None) -> "Iterator[Database]":
    """Yield the database of this machine's settings, whatever the revision of its tables.

    Raises:
        MissingExtra: the libraries of the service are not installed.
    """
    from dfkd_core.extras import require

    require("server")
    from jobs.db.database import Database
    from jobs.settings import settings_from_environment

    with closing(Database(settings_from_environment(data_dir).resolved_database_url)) as database:
        yield database
