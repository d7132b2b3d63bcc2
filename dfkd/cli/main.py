"""`dfkd`: start the service, submit teachers, follow jobs, fetch students.

Exit codes: 0 done, and for a job that was waited for: it succeeded · 1 the job failed · 2 wrong usage, or an extra of
the package is missing · 3 the job was cancelled · 4 the service refused · 5 the service cannot be reached · 6 the time
to wait was up · 7 a download arrived damaged or could not be written · 130 interrupted; the job goes on.
"""

import sys
from typing import Annotated

import typer
from pydantic import TypeAdapter

import dfkd
from dfkd.cli import db, display, export_teacher, inspect_teacher, jobs, keys, plan, server, teachers, tenants
from dfkd.cli.exit_codes import show_error
from dfkd.cli.options import DEFAULT_URL, AsJson, Url
from dfkd.client import Client
from dfkd.wire.menu import StudentView

app = typer.Typer(
    help="Compress a trained image classifier into a small ONNX student, without any of its training data. Where the "
    "service asks for an API key: DFKD_API_KEY, or DFKD_API_KEY_FILE for a file that holds it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(server.up)
app.add_typer(jobs.app)
app.command()(teachers.upload)
app.command("plan")(plan.plan)
app.command("export-teacher")(export_teacher.export_teacher)
app.command("inspect")(inspect_teacher.inspect)
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.command()(tenants.audit)
app.command()(server.janitor)

out = display.console(stderr=False)
err = display.console(stderr=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"dfkd {dfkd.__version__}")
        raise typer.Exit


@app.callback()
def dfkd_(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of `dfkd` itself."""


@app.command()
def quota(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show your limits, and how much of them is used."""
    with Client(url) as client:
        found = client.quota()
    if as_json:
        out.print(found.model_dump_json(indent=2))
    else:
        display.show_quota(out, found)


@app.command()
def students(
    input_: Annotated[str, typer.Option("--input", help="channels,height,width of one image.")] = "3,32,32",
    classes: Annotated[int, typer.Option(help="Classes of the teacher.", min=2)] = 10,
    width: Annotated[float, typer.Option(help="Width multiplier.", min=0.001, max=16)] = 1.0,
    as_json: AsJson = False,
) -> None:
    """List the students with their parameters and multiply-adds for one input. Needs no service."""
    from dfkd_core.architectures import catalogue
    from dfkd_core.spec import overrides

    entries = [StudentView.model_validate(entry) for entry in catalogue(overrides.shape(input_), classes, width)]
    if as_json:
        out.print(TypeAdapter(list[StudentView]).dump_json(entries, indent=2).decode())
    else:
        display.show_students(out, entries)


def main() -> None:
    """Run a command, and turn an error into a line on standard error and an exit code."""
    try:
        app()
    except Exception as error:
        code = show_error(err, error)
        if code is None:
            raise
        sys.exit(code)


if __name__ == "__main__":
    main()
