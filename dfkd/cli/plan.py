"""`dfkd plan`: what a job would take, asked of a service, or measured on this machine."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dfkd.cli import display
from dfkd.cli.exit_codes import Exit
from dfkd.cli.options import DEFAULT_URL, Arguments, AsJson, ChosenLogits, Mean, Pick, Std, Url, Weights
from dfkd.cli.spec_options import (
    TEACHER_HELP,
    Architecture,
    Assign,
    Document,
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
    validated,
)
from dfkd.cli.teacher_argument import NetworkOptions, teacher_to_send
from dfkd.client import Client
from dfkd.errors import UsageError
from dfkd.external_data import one_file
from dfkd.wire.plan import NetworkView, PlanOptionView, PlanView

out = display.console(stderr=False)


def plan(  # noqa: PLR0917 - every option of a command is a parameter
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
    local: Annotated[
        bool, typer.Option("--local", help="Measure this machine instead of asking a service; takes a few seconds.")
    ] = False,
    threads: Annotated[int, typer.Option(help="With --local: threads of a job.", min=1)] = 2,
    device: Annotated[str, typer.Option(help="With --local: cpu, cuda or cuda:N.")] = "cpu",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Say how long a job would take and how much memory, for every effort and method, before anything is spent.

    Exit code 4 where the service would refuse the job as it is.
    """
    told = TeacherOptions(architecture, shape, layout, mean, std, range_, teacher_output)
    document = spec_document(spec, told, assign, student=student, effort=effort, method=method)
    network = NetworkOptions(weights=weights, pick=pick, arguments=arguments or [], logits=logits)
    with teacher_to_send(teacher, network, space=input_in(document)) as what:
        if local:
            found = plan_locally(what, document, threads=threads, device=device)
        else:
            with Client(url) as client:
                found = client.plan(what, document)
    if as_json:
        out.print(found.model_dump_json(indent=2))
    else:
        show_plan(out, found)
    raise typer.Exit(Exit.OK if found.options[0].fits else Exit.REFUSED)


def plan_locally(teacher: Path | str, document: Document, *, threads: int, device: str) -> PlanView:
    """Inspect the file and measure this machine, without a service.

    Raises:
        UsageError: the teacher is not a file, the spec is not valid, or the machine cannot be measured.
        MissingExtra: the libraries of service and worker are not installed.
        DfkdError: teacher and spec do not fit together.
    """
    from dfkd_core.extras import require

    if not isinstance(teacher, Path):
        raise UsageError("--local plans for a file, not for an uploaded teacher")
    for extra in ("server", "worker"):
        require(extra)
    from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
    from dfkd_core.planning.worker_speed import WorkerSpeed
    from jobs.devices import class_of
    from jobs.models import JobSpec, WorkerClass
    from jobs.settings import settings_from_environment
    from service.intake.plans import plan as plan_of
    from service.representation.plan_view import plan_view
    from worker.measurement import host_memory_bytes

    spec = validated(JobSpec, document)
    with one_file(teacher) as one:
        (inspection, _), size = inspect_with_input_space(one, spec.teacher), one.stat().st_size
    speed = WorkerSpeed.model_validate_json(_measured(threads=threads, device=device))
    memory_bytes = host_memory_bytes() if speed.device_bytes is None else speed.device_bytes
    here = WorkerClass(
        name=speed.worker_class, device_class=class_of(device), speed=speed, memory_bytes=memory_bytes, slots=1
    )
    return plan_view(
        plan_of(spec, inspection, teacher_bytes=size, classes=[here], settings=settings_from_environment())
    )


def _measured(*, threads: int, device: str) -> str:
    """Return the benchmark's output, from a process of its own that imports PyTorch."""
    command = [sys.executable, "-m", "dfkd_core.calibration", "--threads", str(threads), "--device", device]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise UsageError(f"this machine cannot be measured: {last[0]}")
    return child.stdout


def show_plan(out: Console, plan: PlanView) -> None:
    """Print a plan for people: sizes, then one row for each effort and method."""
    out.print(f"teacher  {_network(plan.teacher)}")
    out.print(f"student  {_network(plan.student)}")
    names = [known.name for known in plan.worker_classes]
    if not names:
        out.print("no worker has measured itself yet, as each does in its first seconds: time and memory are not known")
    columns = [column for name in names for column in (name, "memory")]
    rows = [["", "method", "effort", "updates", *columns, "fits"]]
    rows += [_row(option, names) for option in plan.options]
    numeric = set(range(3, 4 + len(columns)))
    styles = ["bold" if option.chosen else None for option in plan.options]
    display.show_columns(out, rows, right=numeric, styles=styles)
    for warning in plan.warnings:
        display.show_complaint(out, "warning", warning.code, warning.detail, hint=warning.hint)
    for miss in plan.options[0].misses:
        out.print(f"as it is, it misses {miss.limit}: {miss.needed:,.0f} of {miss.allowed:,.0f}")
    if plan.advice:
        out.print(plan.advice)


def _row(option: PlanOptionView, classes: list[str]) -> list[str]:
    found = {entry.worker_class: entry for entry in option.estimate or []}
    cells = []
    for name in classes:
        entry = found.get(name)
        cells += ["", ""] if entry is None else [display.duration(entry.seconds), display.size(entry.memory_bytes)]
    method = option.method if option.method == option.resolves_to else f"{option.method} ({option.resolves_to})"
    fits = "yes" if option.fits else "no: " + ", ".join(miss.limit for miss in option.misses)
    return ["*" if option.chosen else "", method, option.effort or "", str(option.steps), *cells, fits]


def _network(network: NetworkView) -> str:
    macs = "" if network.macs is None else f", {network.macs:,} multiply-adds for one image"
    return f"{network.name or ''} {network.parameters:,} parameters{macs}, {display.size(network.bytes)}".strip()
