"""What several commands are told, in one wording, and the ledger that those without a service open."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dfkd_core.spec.overrides import BadOption
from jobs.identity import TENANT
from jobs.settings import settings_from_environment
from jobs.store import Store, open_store

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option("--url", envvar="DFKD_URL", help="Where the service is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept; DFKD_DATABASE_URL goes first.")]


@contextmanager
def opened_ledger(data_dir: Path | None) -> Iterator[Store]:
    """The ledger of this machine's settings, closed afterwards. BadOption, LedgerUnavailable."""
    with closing(open_store(settings_from_environment(data_dir))) as store:
        yield store


def check_tenant(name: str) -> None:
    """BadOption for what is no name of a tenant."""
    if not TENANT.fullmatch(name):
        raise BadOption("a tenant is 1 to 64 letters, digits, '_', '.' and '-', the first one a letter or digit")
