"""`dfkd delete`: forget a finished job, or a teacher, and print the receipt."""

from typing import Annotated

import typer

from dfkd.cli import display
from dfkd.cli.options import DEFAULT_URL, AsJson, Url
from dfkd.client import DfkdClient
from jobs.digests import is_digest

out = display.console(stderr=False)


def delete(
    what: Annotated[str, typer.Argument(metavar="ID", help="A finished job, or a teacher that no live job uses.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete a finished job, or a teacher, with all that belongs to it. Prints what went, and what stays and why."""
    with DfkdClient(url) as client:
        receipt = client.delete_teacher(what) if is_digest(what) else client.delete(what)
    if as_json:
        out.print(receipt.model_dump_json(indent=2))
        return
    rows = ", ".join(f"{count} {table}" for table, count in receipt.rows.items())
    out.print(f"deleted {receipt.kind} {receipt.id} at {receipt.deleted_at:%Y-%m-%d %H:%M:%S} UTC")
    out.print(f"  rows: {rows}")
    for file in receipt.files:
        out.print(f"  file {file.sha256}: {', '.join(file.role)}, {file.bytes} bytes")
    for kept in receipt.kept:
        out.print(f"  kept {kept.sha256}: {', '.join(kept.role)}, {kept.reason}")
