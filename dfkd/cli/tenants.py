"""`dfkd tenants` and `dfkd audit`: limits of tenants, and who did what. They run where the database can be reached."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd.cli import display
from dfkd.cli.options import DataDir, check_tenant, opened_ledger
from dfkd.errors import UsageError

if TYPE_CHECKING:
    from jobs.quota_limits import Quota

LARGEST_LIMIT = 2**53

app = typer.Typer(help="Limits of tenants, and how much of them is used.", no_args_is_help=True)
out = display.console(stderr=False)


@app.command("list")
def list_(data_dir: DataDir = None) -> None:
    """Print every tenant with its quotas, a JSON object a line; a limit of null means any number."""
    with opened_ledger(data_dir) as store:
        for tenant in store.tenants.names():
            uses = store.tenants.quota_usage(tenant).items()
            limits = {quota.value: {"limit": use.limit or None, "used": use.used} for quota, use in uses}
            out.print(json.dumps({"tenant": tenant, **limits}))


@app.command("set")
def set_(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    limits: Annotated[list[str], typer.Argument(metavar="LIMIT=NUMBER", help="queued_jobs=20; 0: any; or `default`.")],
    data_dir: DataDir = None,
) -> None:
    """Give a tenant limits of its own: queued_jobs, running_jobs, stored_bytes, device_seconds_per_day."""
    check_tenant(tenant)
    found = dict(_limit(text) for text in limits)
    with opened_ledger(data_dir) as store:
        store.tenants.limit(tenant, found)


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only actions of this tenant.")] = None,
    object_: Annotated[str | None, typer.Option("--object", help="Only actions on this job or teacher.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only actions since then (UTC).")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print who did what to which job or teacher, oldest first, a JSON object a line."""
    after = None if since is None else since.replace(tzinfo=UTC)
    with opened_ledger(data_dir) as store:
        for line in store.audit_log.read(tenant=tenant, object_id=object_, since=after):
            out.print(json.dumps({**asdict(line), "at": line.at.isoformat(timespec="milliseconds")}))


def _limit(text: str) -> "tuple[Quota, int | None]":
    """`name=number` as a quota and its limit; None for the default.

    Raises:
        UsageError: there is no such quota, or this is no limit.
    """
    from jobs.quota_limits import Quota

    name, _, number = text.partition("=")
    if name not in set(Quota):
        raise UsageError(f"{name!r} is no limit; there are {', '.join(Quota)}")
    if number == "default":
        return Quota(name), None
    if not (number.isascii() and number.isdigit() and int(number) <= LARGEST_LIMIT):
        raise UsageError(f"{name} must be a whole number, or `default`")
    return Quota(name), int(number)
