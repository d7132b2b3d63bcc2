"""`dfkd keys`: make, list and revoke API keys. Runs where the database can be reached, and asks for no key itself."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd.cli import display
from dfkd.cli.options import AsJson, DataDir, check_tenant, opened_ledger
from dfkd.errors import UsageError

if TYPE_CHECKING:
    from jobs.tenancy.api_keys import ApiKey

MAX_NAME_CHARACTERS = 64

app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)
out = display.console(stderr=False)
err = display.console(stderr=True)


class ScopeName(StrEnum):
    """The scopes of `jobs.identity.Scope`, which is not imported before a command runs. A test compares the two."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    METRICS = "metrics"


@app.command()
def create(  # noqa: PLR0917 - every option of a command is a parameter
    tenant: Annotated[str, typer.Option(help="Tenant whose jobs and teachers it opens.")] = "default",
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    scope: Annotated[
        list[ScopeName] | None, typer.Option(help="What the key allows; repeat for more. Default: both of jobs.")
    ] = None,
    priority: Annotated[
        int, typer.Option(help="Priority of the jobs; higher ones are claimed first.", min=-1000, max=1000)
    ] = 0,
    days: Annotated[
        float | None, typer.Option(help="Days for which the key is valid. Default: for ever.", min=0)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept."""
    check_tenant(tenant)
    if name is not None and not (name.isprintable() and 0 < len(name) <= MAX_NAME_CHARACTERS):
        raise UsageError(f"a name has 1 to {MAX_NAME_CHARACTERS} printable characters")
    with opened_ledger(data_dir) as ledger:
        from jobs.db.db_time import DAY_SECONDS
        from jobs.identity import Caller, Scope

        scopes = frozenset(Scope(name) for name in scope or (ScopeName.JOBS_READ, ScopeName.JOBS_WRITE))
        valid_seconds = None if days is None else days * DAY_SECONDS
        made, key = ledger.api_keys.create(Caller(tenant, priority, scopes), name=name, valid_seconds=valid_seconds)
    err.print(f"key {made.id} of {made.tenant} ({', '.join(sorted(made.scopes))}); it is not shown again:")
    out.print(key)


@app.command("list")
def list_(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all keys, the revoked ones too."""
    with opened_ledger(data_dir) as ledger:
        found = ledger.api_keys.list()
    if as_json:
        out.print(json.dumps([_as_json(key) for key in found], indent=2))
    else:
        _show_keys(found)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="The key.")], data_dir: DataDir = None) -> None:
    """Refuse a key from now on. Services obey within seconds."""
    with opened_ledger(data_dir) as ledger:
        revoked = ledger.api_keys.revoke(key_id)
    if revoked is None:
        raise UsageError(f"there is no key {key_id!r}; `dfkd keys list` shows what there is")
    out.print(f"{revoked.id} {_validity(revoked)}")


def _show_keys(keys: "Sequence[ApiKey]") -> None:
    """Print one line for each key."""
    rows = [
        (
            key.id,
            key.tenant,
            " ".join(sorted(key.scopes)),
            str(key.priority),
            _validity(key),
            display.moment(key.created_at),
            display.moment(key.last_used_at) if key.last_used_at else "",
            key.name or "",
        )
        for key in keys
    ]
    heading = ("ID", "TENANT", "SCOPES", "PRIORITY", "STATE", "CREATED", "LAST USED", "NAME")
    display.show_columns(out, [heading, *rows], right={3})


def _validity(key: "ApiKey") -> str:
    """Return whether the key may be used, and until when."""
    if key.revoked_at is not None:
        return f"revoked {display.moment(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    expired = key.expires_at <= datetime.now(UTC)
    return f"{'expired' if expired else 'valid until'} {display.moment(key.expires_at)}"


def _as_json(key: "ApiKey") -> dict[str, object]:
    values = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(key).items()}
    return {**values, "scopes": sorted(key.scopes)}
