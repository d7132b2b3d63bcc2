"""`dfkd delete`: forget a finished job, or a teacher, and print the receipt."""

import re
from typing import Annotated

import typer

from service import display
from service.client import DfkdClient

out = display.console(stderr=False)

_TEACHER_ID = re.compile(r"[0-9a-f]{64}")


def delete(
    what: Annotated[str, typer.Argument(metavar="ID", help="A finished job, or a teacher that no live job uses.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    url: Annotated[
        str, typer.Option("--url", envvar="DFKD_URL", help="Where the service is.")
    ] = "http://127.0.0.1:8000",
) -> None:
    """Delete a finished job, or a teacher, with all that belongs to it. Prints what went, and what stays and why."""
    with DfkdClient(url) as client:
        receipt = client.delete_teacher(what) if _TEACHER_ID.fullmatch(what) else client.delete(what)
    if as_json:
        out.print(receipt.model_dump_json(indent=2))
        return
    rows = ", ".join(f"{count} {table}" for table, count in receipt.rows.items())
    out.print(f"deleted {receipt.kind} {receipt.id} at {receipt.deleted_at:%Y-%m-%d %H:%M:%S} UTC")
    out.print(f"  rows: {rows}")
    for file in receipt.files:
        out.print(f"  file {file.sha256}: {', '.join(file.was)}, {file.bytes} bytes")
    for kept in receipt.kept:
        out.print(f"  kept {kept.sha256}: {', '.join(kept.was)}, {kept.because}")
