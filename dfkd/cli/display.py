"""What `dfkd` shows: live progress on a terminal, plain lines elsewhere, tables of jobs and students."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from dfkd.wire.event import EventView
from dfkd.wire.job import JobView
from dfkd.wire.menu import StudentView
from dfkd.wire.problem import Problem
from dfkd.wire.quota import QuotaView, UseView
from dfkd.wire.report import AgreementView, ReportView

PLAIN_SECONDS = 15.0
_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "cancelling": "yellow"}
_COLOURS |= {"paused": "magenta", "pausing": "magenta"}


def console(*, stderr: bool) -> Console:
    """Return a console that shows text as it is, because text from the network must not be read as markup."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


class Follower:
    """Shows the progress of a job: one live line on a terminal, elsewhere a line at each new stage and every 15 s."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = out.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<8}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=out,
            transient=True,
        )
        self._task = self._progress.add_task("job", total=1.0, stage="queued", note="")
        self._printed: tuple[str, str] | None = None
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._progress.stop()

    def update(self, job: JobView) -> None:
        """Show the job as it is now."""
        if self._live:
            self._progress.update(
                self._task, completed=job.progress.fraction, stage=_stage(job), note=progress_note(job)
            )
            return
        now = time.monotonic()
        if self._printed == (job.state, job.stage) and now - self._printed_at < PLAIN_SECONDS:
            return
        self._printed, self._printed_at = (job.state, job.stage), now
        self._out.print(f"{_stage(job):<10} {job.progress.fraction:6.1%}  {progress_note(job)}".rstrip())


def progress_note(job: JobView) -> str:
    """Steps, agreement, time left and place in the queue, as far as they are known."""
    progress, notes = job.progress, []
    if job.queue_position is not None:
        notes.append("next in the queue" if job.queue_position == 1 else f"number {job.queue_position} in the queue")
    if progress.total_steps:
        notes.append(f"step {progress.step}/{progress.total_steps}")
    if progress.agreement is not None:
        notes.append(f"agreement on the probe {progress.agreement:.1%}")
    if progress.eta_seconds is not None and not job.terminal:
        notes.append(f"{duration(progress.eta_seconds)} left")
    return ", ".join(notes)


def duration(seconds: float) -> str:
    """Seconds as text for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def show_outcome(out: Console, job: JobView, *, audit: AgreementView | None = None) -> None:
    """Show how a job ended.

    The probe chose the student and so overrates it: where the audited agreement is known, it is shown instead.
    """
    notes = [f"{job.id} {job.state} after {duration(job.durations.running_seconds)}"]
    if audit is not None:
        notes.append(audit_note(audit))
    elif job.best is not None:
        notes.append(f"agreement on the probe {job.best.agreement:.1%}")
    out.print(", ".join(notes), style=_COLOURS.get(job.state))
    for warning in job.warnings:
        show_complaint(out, "warning", warning.code, warning.detail, hint=warning.hint)
    if job.error is not None:
        where = f" (while: {job.error.stage})" if job.error.stage else ""
        show_complaint(out, "error", job.error.code, job.error.detail + where, hint=job.error.hint)


def audit_note(audit: AgreementView) -> str:
    """Return the audited agreement and how sure it is."""
    low, high = audit.interval
    return (
        f"agreement {audit.value:.1%} ({audit.confidence:.0%} interval {low:.1%} to {high:.1%}) "
        f"on {audit.n:,} audit images"
    )


def audit_in(files: Sequence[Path]) -> AgreementView | None:
    """Return the agreement in the report among downloaded files; None without a report that this version can read."""
    for path in files:
        if path.name == "report.json":
            with suppress(ValidationError):  # the report of another version
                return ReportView.model_validate_json(path.read_bytes()).agreement
    return None


def show_problem(out: Console, problem: Problem) -> None:
    """Show a refusal: code, detail, hint, and each field to blame."""
    show_complaint(out, "error", problem.code, problem.detail, hint=problem.hint)
    for field in problem.errors or []:
        out.print(f"  {field.parameter or field.pointer or '(the document)'}: {field.detail}")
    for node in problem.nodes or []:
        out.print(f"  {node}")


def show_complaint(out: Console, kind: str, code: str, detail: str, *, hint: str | None = None) -> None:
    """Print one line about what is wrong, and one about what to do, in the words of the command line."""
    from dfkd_core.spec.wording import for_command_line

    out.print(f"{kind}: {code}: {detail}", style="red" if kind == "error" else "yellow")
    told = for_command_line(hint or "")
    if told:
        out.print(f"  hint: {told}")


def show_quota(out: Console, found: QuotaView) -> None:
    """Print one line for the tenant and one for each of its quotas."""
    out.print(f"tenant {found.tenant}")
    for name, use in found:
        if isinstance(use, UseView):
            out.print(f"  {name:<22}  {use.used} of {'any number' if use.limit is None else use.limit}")


def show_job(out: Console, job: JobView) -> None:
    """Print one job for people."""
    rows = [
        ("job", job.id),
        ("name", job.name),
        ("labels", ", ".join(f"{key}={value}" for key, value in job.labels.items())),
        ("state", job.state if job.terminal or job.state == job.stage else f"{job.state} ({job.stage})"),
        ("progress", f"{job.progress.fraction:.1%} {progress_note(job)}".strip()),
        ("student", _student(job)),
        ("teacher", f"{job.teacher.id[:12]}…  {job.teacher.format}, {size(job.teacher.bytes)}"),
        ("attempt", str(job.attempt)),
        ("running", duration(job.durations.running_seconds)),
        ("created", moment(job.created_at)),
        ("finished", moment(job.finished_at) if job.finished_at else None),
        *[("file", f"{artifact.name}  {size(artifact.bytes)}  sha256 {artifact.sha256}") for artifact in job.artifacts],
    ]
    for name, value in rows:
        if value:
            out.print(f"{name:<9} {value}")
    for warning in job.warnings:
        show_complaint(out, "warning", warning.code, warning.detail, hint=warning.hint)
    if job.error is not None:
        show_complaint(out, "error", job.error.code, job.error.detail, hint=job.error.hint)


def event_line(event: EventView) -> str:
    """Return one line of history."""
    data = ", ".join(f"{name} {value}" for name, value in event.data.items())
    return f"{event.seq:>5}  {moment(event.at)}  {event.kind}  {data}".rstrip()


def show_jobs(out: Console, jobs: Sequence[JobView]) -> None:
    """Print a table with one line a job."""
    rows = [
        (
            job.id,
            job.state,
            job.stage,
            f"{job.progress.fraction:.0%}",
            f"{job.best.agreement:.1%}" if job.best else "",
            _student(job),
            moment(job.created_at),
            job.name or "",
        )
        for job in jobs
    ]
    heading = ("ID", "STATE", "STAGE", "DONE", "ON PROBE", "STUDENT", "CREATED", "NAME")
    show_columns(out, [heading, *rows], right={3, 4}, styles=[_COLOURS.get(job.state) for job in jobs])


def show_students(out: Console, students: Sequence[StudentView]) -> None:
    """Print the catalogue of students for one input."""
    rows = [
        (
            student.name,
            student.family,
            "" if student.parameters is None else f"{student.parameters:,}",
            "" if student.macs is None else f"{student.macs:,}",
            student.refused or "",
        )
        for student in students
    ]
    show_columns(out, [("STUDENT", "FAMILY", "PARAMETERS", "MACS", "NOTE"), *rows], right={2, 3})
    out.print('And "teacher": the teacher\'s own graph, narrower; --set student.width=0.5 or student.params=25%.')


def show_columns(
    out: Console, rows: Sequence[Sequence[str]], *, right: set[int], styles: Sequence[str | None] = ()
) -> None:
    """Print rows in columns as wide as their longest cell; nothing is cut, however narrow the terminal is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, style in zip_longest(rows, (None, *styles)):
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.print("  ".join(cells).rstrip(), style=style)


def size(count: int) -> str:
    """Return a number of bytes as text for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def moment(at: datetime) -> str:
    """Return a time, in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _student(job: JobView) -> str:
    student = job.spec.get("student")  # another version's spec may look otherwise
    return str(student.get("architecture", "")) if isinstance(student, dict) else ""


def _stage(job: JobView) -> str:
    if job.terminal or job.state in {"queued", "cancelling", "pausing", "paused"}:
        return job.state
    return "starting" if job.stage == "queued" else job.stage  # claimed, but its runner has not reported yet
