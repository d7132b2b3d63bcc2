"""`dfkd keys`: make, list and revoke API keys. Runs where the database can be reached, and asks for no key itself."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dfkd_core.overrides import BadOption
from jobs.api_keys import ApiKey, ApiKeys
from jobs.callers import DEFAULT_TENANT, TENANT, Caller, Scope
from jobs.settings import settings_from_environment
from jobs.store import open_store
from service import display

DAY_SECONDS = 86400.0
MAX_NAME_CHARACTERS = 64

app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)
out = display.console(stderr=False)
err = display.console(stderr=True)

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept; DFKD_DATABASE_URL goes first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


@app.command()
def create(  # noqa: PLR0917 - every option of a command is a parameter
    tenant: Annotated[str, typer.Option(help="Whose jobs and teachers its bearer sees.")] = DEFAULT_TENANT,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it allows; repeat for more. Both of jobs unless given.")
    ] = None,
    priority: Annotated[int, typer.Option(help="Of the jobs; higher ones go first.", min=-1000, max=1000)] = 0,
    days: Annotated[float | None, typer.Option(help="Valid for so many days; for ever unless given.", min=0)] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept."""
    if not TENANT.fullmatch(tenant):
        raise BadOption("a tenant is 1 to 64 letters, digits, '_', '.' and '-', the first one a letter or digit")
    if name is not None and not (name.isprintable() and 0 < len(name) <= MAX_NAME_CHARACTERS):
        raise BadOption(f"a name has 1 to {MAX_NAME_CHARACTERS} printable characters")
    caller = Caller(tenant, priority, frozenset(scope or (Scope.JOBS_READ, Scope.JOBS_WRITE)))
    with _keys(data_dir) as keys:
        made, key = keys.create(caller, name=name, valid_seconds=None if days is None else days * DAY_SECONDS)
    err.print(f"key {made.id} of {made.tenant} ({', '.join(sorted(made.scopes))}); it is not shown again:")
    out.print(key)


@app.command("list")
def list_(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all keys, the revoked ones too."""
    with _keys(data_dir) as keys:
        found = keys.list()
    if as_json:
        out.print(json.dumps([_as_json(key) for key in found], indent=2))
    else:
        display.show_keys(out, found)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="The key.")], data_dir: DataDir = None) -> None:
    """Refuse a key from now on. Services obey within seconds."""
    with _keys(data_dir) as keys:
        revoked = keys.revoke(key_id)
    if revoked is None:
        raise BadOption(f"there is no key {key_id!r}; `dfkd keys list` shows what there is")
    out.print(f"{revoked.id} {display.key_state(revoked)}")


@contextmanager
def _keys(data_dir: Path | None) -> Iterator[ApiKeys]:
    with closing(open_store(settings_from_environment(data_dir))) as store:
        yield store.api_keys


def _as_json(key: ApiKey) -> dict[str, object]:
    told = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(key).items()}
    return {**told, "scopes": sorted(key.scopes)}
