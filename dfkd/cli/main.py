"""`dfkd`: start the service, submit teachers, follow jobs, fetch students.

Exit codes: 0 done, and for a job that was waited for: it succeeded · 1 the job failed · 2 wrong usage · 3 the job was
cancelled · 4 the service refused · 5 the service cannot be reached · 6 the time to wait was up · 7 a download arrived
damaged or could not be written · 130 interrupted; the job goes on.
"""

import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import TypeAdapter

from dfkd.cli import db, display, export_teacher, keys, tenants
from dfkd.cli.options import DEFAULT_URL, AsJson, Url
from dfkd.client import Damaged, DfkdClient, Refused, Unreachable, WaitTimeout
from dfkd.wire.job import JobList, JobView
from dfkd.wire.menu import StudentsFor, StudentView
from dfkd_core.errors import DfkdError
from dfkd_core.spec import overrides
from jobs.db.db_time import DAY_SECONDS
from jobs.digests import is_digest
from jobs.errors import LedgerError, LedgerUnavailable
from jobs.files.artifacts import open_artifacts
from jobs.garbage_collector import collect_garbage
from jobs.settings import settings_from_environment
from jobs.store import open_store
from service import purge_commands
from service.teacher_options import told_of_teacher


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    REFUSED = 4
    UNREACHABLE = 5
    TIMEOUT = 6
    DOWNLOAD = 7
    INTERRUPTED = 130


app = typer.Typer(
    help="Compress a trained image classifier into a small ONNX student, without any of its training data. Where the "
    "service asks for an API key: DFKD_API_KEY, or DFKD_API_KEY_FILE for a file that holds it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.command()(tenants.audit)
app.command()(purge_commands.delete)
app.command()(export_teacher.export_teacher)
out = display.console(stderr=False)
err = display.console(stderr=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Directory for the files; created if absent.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Give up waiting after so many seconds.", min=0)]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", help="The same command under the same key makes one job, for a day.")
]


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
) -> None:
    """Start the whole service: API, worker and a private Redis. Ctrl-C stops it."""
    from service.embedded import up

    up.up(settings_from_environment(data_dir), host, port)


@app.command()
def submit(  # noqa: PLR0917 - every option of a command is a parameter
    teacher: Annotated[str, typer.Argument(help="An ONNX or safetensors file, or the id of an uploaded teacher.")],
    student: Annotated[
        str | None, typer.Option(help="Architecture of the student; `dfkd students` lists them.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="JSON file to start from.", exists=True, dir_okay=False)] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="dotted.path=value, from the root of the spec.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value to filter by; repeat for more.")] = None,
    wait_: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Download into this directory; waits.")] = None,
    timeout: Timeout = None,
    key: Key = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send a teacher and say which student to make of it. Prints the id of the job."""
    document = overrides.read_spec_file(spec) if spec else {}
    if student is not None:
        overrides.put(document, "student.architecture", student)
    if name is not None:
        overrides.put(document, "name", name)
    for label_key, value in overrides.labels(label or []).items():
        overrides.put_label(document, label_key, value)
    overrides.apply(document, assign or [])
    with DfkdClient(url) as client:
        job = client.submit(_teacher(teacher), document, key=key)
        if not (wait_ or output):
            _print_job(job, job.id, as_json=as_json)
            return
        err.print(f"job {job.id}")
        _follow(client, job.id, timeout_seconds=timeout, output=output, as_json=as_json)


@app.command("list")
def list_(
    state: Annotated[list[str] | None, typer.Option(help="Only this state; repeat for more.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only jobs with key=value; repeat for more.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    found: list[JobView] = []
    cursor = None
    with DfkdClient(url) as client:
        while len(found) < limit:
            page = client.jobs(
                limit=min(100, limit - len(found)),
                cursor=cursor,
                states=state or [],
                labels=overrides.labels(label or []),
            )
            found += page.jobs
            cursor = page.next_cursor
            if cursor is None:
                break
    if as_json:
        out.print(JobList(jobs=found, next_cursor=cursor).model_dump_json(indent=2))
    else:
        display.show_jobs(out, found)


@app.command()
def show(
    job_id: JobId,
    events: Annotated[bool, typer.Option("--events", help="The history too.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show one job."""
    with DfkdClient(url) as client:
        job = client.job(job_id)
        if as_json:
            out.print(job.model_dump_json(indent=2))
        else:
            display.show_job(out, job)
        if events:
            for event in client.events(job_id):
                out.print(event.model_dump_json() if as_json else display.event_line(event))


@app.command()
def wait(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Download into this directory.")] = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Follow a job to its end. Exit code 0 only when it succeeded."""
    with DfkdClient(url) as client:
        _follow(client, job_id, timeout_seconds=timeout, output=output, as_json=as_json)


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Cancel a job."""
    with DfkdClient(url) as client:
        job = client.cancel(job_id)
    _print_job(job, job.state, as_json=as_json)


@app.command()
def pause(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Stop a job with a checkpoint, until it is resumed."""
    with DfkdClient(url) as client:
        job = client.pause(job_id)
    _print_job(job, job.state, as_json=as_json)


@app.command()
def resume(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Let a paused job go on where it was."""
    with DfkdClient(url) as client:
        job = client.resume(job_id)
    _print_job(job, job.state, as_json=as_json)


@app.command()
def retry(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Run a finished job once more. Prints the id of the new job."""
    with DfkdClient(url) as client:
        job = client.retry(job_id)
    _print_job(job, job.id, as_json=as_json)


@app.command("continue")
def continue_(
    job_id: JobId,
    steps: Annotated[int | None, typer.Option(help="Student updates in all, the old ones included.", min=1)] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Wall-clock limit of the new job.", min=0.001)] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Go on with a finished job from its last checkpoint. Prints the id of the new job."""
    given = {"steps": steps, "max_seconds": max_seconds}
    budget = {name: value for name, value in given.items() if value is not None}
    with DfkdClient(url) as client:
        job = client.continue_(job_id, {"distillation": {"budget": budget}})
    _print_job(job, job.id, as_json=as_json)


@app.command()
def download(job_id: JobId, output: Output = Path("."), url: Url = DEFAULT_URL) -> None:
    """Fetch the files of a succeeded job; each is verified by its sha256."""
    with DfkdClient(url) as client:
        job = client.job(job_id)
        if job.state != "succeeded":
            display.show_complaint(err, "error", "artifact-not-ready", f"the job is {job.state}")
            raise typer.Exit(Exit.REFUSED)
        saved = client.download(job_id, output)
    for path in saved:
        out.print(str(path))
    audit = display.audit_in(saved)
    if audit is not None:
        err.print(display.audit_note(audit))


@app.command()
def quota(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show what you may have, and what you have."""
    with DfkdClient(url) as client:
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
    from service.representation.menu import students as sized

    channels, height, columns = overrides.shape(input_)
    entries = sized(
        StudentsFor(channels=channels, height=height, width=columns, num_classes=classes, student_width=width)
    )
    if as_json:
        out.print(TypeAdapter(list[StudentView]).dump_json(entries, indent=2).decode())
    else:
        display.show_students(out, entries)


@app.command()
def inspect(
    teacher: Annotated[Path, typer.Argument(help="An ONNX or safetensors file.", exists=True, dir_okay=False)],
    architecture: Annotated[
        str | None, typer.Option(help="Of a safetensors teacher; `dfkd students` lists them.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="channels,height,width of one image.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="path=value, from the spec's `teacher`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a teacher is, which methods it can serve, and whether it computes and differentiates as it should.

    Needs no service. Exit code 4 where the teacher would be refused.
    """
    from dfkd.cli.inspect_teacher import examine, show_examination

    found = examine(teacher, told_of_teacher(architecture, shape, assign or []))
    if as_json:
        out.print(found.model_dump_json(indent=2))
    else:
        show_examination(out, found)
    raise typer.Exit(Exit.OK if found.refused is None else Exit.REFUSED)


@app.command()
def janitor(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
) -> None:
    """Let go of files whose time is over; prints what and why. The service does this every hour by itself."""
    settings = settings_from_environment(data_dir)
    store = open_store(settings)
    try:
        retention_seconds = settings.retention_days * DAY_SECONDS
        acts = collect_garbage(store, open_artifacts(settings), retention_seconds=retention_seconds, dry_run=dry_run)
    finally:
        store.close()
    for act in acts:
        out.print(f"{act.verb} {act.what}: {act.why}")
    err.print(f"{len(acts)} {'to do' if dry_run else 'done'}")


def main() -> None:
    """The entry point: runs a command, and turns what goes wrong into a line and an exit code."""
    try:
        app()
    except Refused as error:
        display.show_problem(err, error.problem)
        _end(Exit.REFUSED)
    except WaitTimeout as error:
        display.show_complaint(err, "error", "wait-timeout", f"{error}; it goes on")
        _end(Exit.TIMEOUT)
    except Unreachable as error:
        display.show_complaint(err, "error", "unreachable", str(error), hint="`dfkd up` starts one; --url says where.")
        _end(Exit.UNREACHABLE)
    except Damaged as error:
        display.show_complaint(err, "error", "digest-mismatch", str(error), hint="Download it again.")
        _end(Exit.DOWNLOAD)
    except overrides.BadOption as error:
        display.show_complaint(err, "error", "usage", str(error))
        _end(Exit.USAGE)
    except DfkdError as error:
        display.show_complaint(err, "error", error.code, error.detail, hint=error.hint)
        _end(Exit.USAGE)
    except LedgerUnavailable as error:
        display.show_complaint(err, "error", "unavailable", str(error))
        _end(Exit.UNREACHABLE)
    except LedgerError as error:
        display.show_complaint(err, "error", "ledger", str(error))
        _end(Exit.REFUSED)
    except OSError as error:
        display.show_complaint(err, "error", "file", f"{error.filename or 'file'}: {error.strerror or error}")
        _end(Exit.DOWNLOAD)


def _follow(
    client: DfkdClient, job_id: str, *, timeout_seconds: float | None, output: Path | None, as_json: bool
) -> NoReturn:
    """Show a job until it ends, fetch its files, and exit by how it ended."""
    try:
        with display.Follower(err) as follower:
            job = client.wait(job_id, timeout_seconds=timeout_seconds, on_update=follower.update)
    except KeyboardInterrupt:
        err.print(f"interrupted; the job goes on: dfkd wait {job_id}")
        raise typer.Exit(Exit.INTERRUPTED) from None
    saved: list[Path] = []
    try:
        if job.state == "succeeded" and output is not None:
            saved = client.download(job_id, output)
    finally:
        display.show_outcome(err, job, audit=display.audit_in(saved))
    for path in saved:
        err.print(f"saved {path}")
    out.print(job.model_dump_json(indent=2) if as_json else f"{job.id} {job.state}")
    codes = {"succeeded": Exit.OK, "cancelled": Exit.CANCELLED}
    raise typer.Exit(codes.get(job.state, Exit.FAILED))


def _print_job(job: JobView, short: str, *, as_json: bool) -> None:
    """The whole job as JSON where that was asked for."""
    out.print(job.model_dump_json(indent=2) if as_json else short)


def _teacher(text: str) -> Path | str:
    """A file if there is one; else the id of a teacher, if it looks like one."""
    path = Path(text)
    if path.is_file():
        return path
    if is_digest(text):
        return text
    raise overrides.BadOption(f"there is no file {text!r}, and it is not the id of a teacher")


def _end(code: Exit) -> NoReturn:
    sys.exit(code)


if __name__ == "__main__":
    main()
