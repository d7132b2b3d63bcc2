"""`dfkd tenants` and `dfkd audit`: limits of tenants, and who did what. They run where the database can be reached."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dfkd_core.overrides import BadOption
from jobs.callers import TENANT
from jobs.quotas import Quota
from jobs.settings import settings_from_environment
from jobs.store import Store, open_store
from service import display

LARGEST_LIMIT = 2**53

app = typer.Typer(help="What tenants may have, and what they have.", no_args_is_help=True)
out = display.console(stderr=False)

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept; DFKD_DATABASE_URL goes first.")]


@app.command("list")
def list_(data_dir: DataDir = None) -> None:
    """Print every tenant with its quotas, a JSON object a line; a limit of null means any number."""
    with _ledger(data_dir) as store:
        for tenant in store.tenants.names():
            uses = store.tenants.standing(tenant).items()
            told = {quota.value: {"limit": use.limit or None, "used": use.used} for quota, use in uses}
            out.print(json.dumps({"tenant": tenant, **told}))


@app.command("set")
def set_(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    limits: Annotated[list[str], typer.Argument(metavar="LIMIT=NUMBER", help="queued_jobs=20; 0: any; or `default`.")],
    data_dir: DataDir = None,
) -> None:
    """Give a tenant limits of its own: queued_jobs, running_jobs, stored_bytes, device_seconds_per_day."""
    if not TENANT.fullmatch(tenant):
        raise BadOption("a tenant is 1 to 64 letters, digits, '_', '.' and '-', the first one a letter or digit")
    found = dict(_limit(text) for text in limits)
    with _ledger(data_dir) as store:
        store.tenants.limit(tenant, found)


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only what this tenant did.")] = None,
    object_: Annotated[str | None, typer.Option("--object", help="Only what was done to this job or teacher.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only what was done since then (UTC).")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print who did what to which job or teacher, oldest first, a JSON object a line."""
    after = None if since is None else since.replace(tzinfo=UTC)
    with _ledger(data_dir) as store:
        for line in store.trail.read(tenant=tenant, object_id=object_, since=after):
            out.print(json.dumps({**asdict(line), "at": line.at.isoformat(timespec="milliseconds")}))


@contextmanager
def _ledger(data_dir: Path | None) -> Iterator[Store]:
    store = open_store(settings_from_environment(data_dir))
    try:
        yield store
    finally:
        store.close()


def _limit(text: str) -> tuple[Quota, int | None]:
    name, _, number = text.partition("=")
    if name not in set(Quota):
        raise BadOption(f"{name!r} is no limit; there are {', '.join(Quota)}")
    if number == "default":
        return Quota(name), None
    if not (number.isascii() and number.isdigit() and int(number) <= LARGEST_LIMIT):
        raise BadOption(f"{name} must be a whole number, or `default`")
    return Quota(name), int(number)
