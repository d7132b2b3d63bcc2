"""Commands on jobs and teachers of a running service: submit, follow, stop, continue, fetch, delete."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dfkd.cli import display
from dfkd.cli.exit_codes import Exit
from dfkd.cli.options import (
    DEFAULT_URL,
    Arguments,
    AsJson,
    ChosenLogits,
    JobId,
    Mean,
    Pick,
    Std,
    Url,
    Weights,
    is_teacher_id,
)
from dfkd.cli.spec_options import (
    TEACHER_HELP,
    Architecture,
    Assign,
    Effort,
    Layout,
    Method,
    PixelRange,
    Shape,
    SpecFile,
    Student,
    TeacherOptions,
    TeacherOutput,
    input_in,
    spec_document,
)
from dfkd.cli.teacher_argument import NetworkOptions, teacher_to_send
from dfkd.client import Client
from dfkd.wire.job import JobList, JobView

out = display.console(stderr=False)
err = display.console(stderr=True)

Output = Annotated[Path, typer.Option("--output", "-o", help="Directory for the files; created if absent.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Stop waiting after this many seconds.", min=0)]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", help="The same command under the same key makes one job, for a day.")
]

app = typer.Typer()


@app.command()
def submit(  # noqa: PLR0917 - every option of a command is a parameter
    teacher: Annotated[str, typer.Argument(help=f"{TEACHER_HELP}; or the id of an uploaded teacher.")],
    student: Student = None,
    effort: Effort = None,
    method: Method = None,
    architecture: Architecture = None,
    shape: Shape = None,
    layout: Layout = None,
    mean: Mean = None,
    std: Std = None,
    range_: PixelRange = None,
    teacher_output: TeacherOutput = None,
    weights: Weights = None,
    pick: Pick = None,
    arguments: Arguments = None,
    logits: ChosenLogits = None,
    spec: SpecFile = None,
    assign: Assign = None,
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
    from dfkd_core.spec import overrides

    told = TeacherOptions(architecture, shape, layout, mean, std, range_, teacher_output)
    document = spec_document(spec, told, assign, student=student, effort=effort, method=method)
    if name is not None:
        overrides.put(document, "name", name)
    for label_key, value in overrides.labels(label or []).items():
        overrides.put_label(document, label_key, value)
    network = NetworkOptions(weights=weights, pick=pick, arguments=arguments or [], logits=logits)
    with Client(url) as client:
        with teacher_to_send(teacher, network, space=input_in(document)) as what:
            job = client.submit(what, document, key=key)
        if not (wait_ or output):
            _print_job(job, job.id, as_json=as_json)
            return
        err.print(f"job {job.id}")
        _follow(client, job.id, timeout_seconds=timeout, output=output, as_json=as_json)


@app.command("list")
def list_(
    state: Annotated[list[str] | None, typer.Option(help="Only this state; repeat for more.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only jobs with key=value; repeat for more.")] = None,
    limit: Annotated[int, typer.Option(help="Largest number of jobs.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    from dfkd_core.spec import overrides

    found: list[JobView] = []
    cursor = None
    with Client(url) as client:
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
    with Client(url) as client:
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
    with Client(url) as client:
        _follow(client, job_id, timeout_seconds=timeout, output=output, as_json=as_json)


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Cancel a job."""
    with Client(url) as client:
        job = client.cancel(job_id)
    _print_job(job, job.state, as_json=as_json)


@app.command()
def pause(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Stop a job with a checkpoint, until it is resumed."""
    with Client(url) as client:
        job = client.pause(job_id)
    _print_job(job, job.state, as_json=as_json)


@app.command()
def resume(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Continue a paused job from its checkpoint."""
    with Client(url) as client:
        job = client.resume(job_id)
    _print_job(job, job.state, as_json=as_json)


@app.command()
def retry(job_id: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Run a finished job once more. Prints the id of the new job."""
    with Client(url) as client:
        job = client.retry(job_id)
    _print_job(job, job.id, as_json=as_json)


@app.command("continue")
def continue_(  # noqa: PLR0917 - every option of a command is a parameter
    job_id: JobId,
    steps: Annotated[int | None, typer.Option(help="Student updates in all, the old ones included.", min=1)] = None,
    effort: Annotated[
        str | None,
        typer.Option(help="quick, standard or thorough: as many updates as that comes to, the old included."),
    ] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Wall-clock limit of the new job.", min=0.001)] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Continue a finished job from its last checkpoint. Prints the id of the new job."""
    given = {"steps": steps, "effort": effort, "max_seconds": max_seconds}
    budget = {name: value for name, value in given.items() if value is not None}
    with Client(url) as client:
        job = client.continue_(job_id, {"distillation": {"budget": budget}})
    _print_job(job, job.id, as_json=as_json)


@app.command()
def download(job_id: JobId, output: Output = Path("."), url: Url = DEFAULT_URL) -> None:
    """Fetch the files of a succeeded job; each is verified by its sha256."""
    with Client(url) as client:
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
def delete(
    what: Annotated[str, typer.Argument(metavar="ID", help="A finished job, or a teacher that no live job uses.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete a finished job, or a teacher, with everything that belongs to it. Prints the receipt."""
    with Client(url) as client:
        receipt = client.delete_teacher(what) if is_teacher_id(what) else client.delete(what)
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


def _follow(
    client: Client, job_id: str, *, timeout_seconds: float | None, output: Path | None, as_json: bool
) -> NoReturn:
    """Show a job until it ends, fetch its files, and exit with the code of its end."""
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
    """Print the whole job as JSON, or only `short`."""
    out.print(job.model_dump_json(indent=2) if as_json else short)
