"""`dfkd inspect`: what the service would say of a teacher, found on this machine without a service.

The structure is found in this process. Running the teacher takes PyTorch and ONNX Runtime, and is done by a child.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_json
from rich.console import Console

from dfkd.cli import display
from dfkd.cli.exit_codes import Exit
from dfkd.cli.options import Arguments, AsJson, ChosenLogits, Mean, Pick, Std, Weights
from dfkd.cli.spec_options import (
    TEACHER_HELP,
    Architecture,
    Assign,
    Layout,
    PixelRange,
    Shape,
    SpecFile,
    TeacherOptions,
    TeacherOutput,
    input_in,
    spec_document,
    teacher_in,
)
from dfkd.cli.teacher_argument import NetworkOptions, file_to_read
from dfkd.errors import UsageError
from dfkd.external_data import one_file

if TYPE_CHECKING:
    from dfkd_core.errors import TeacherError
    from dfkd_core.input_estimate import InputEstimate
    from dfkd_core.inspection.inspection import Inspection
    from dfkd_core.inspection.narrowed import NarrowedSizes
    from dfkd_core.inspection.suitability import Suitability
    from dfkd_core.interface import TeacherInterface
    from dfkd_core.notice import Notice
    from dfkd_core.report import TeacherVerification
    from dfkd_core.spec.teacher import TeacherSpec

out = display.console(stderr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a teacher would not be taken."""

    code: str
    detail: str
    hint: str | None = None
    nodes: list[str] = field(default_factory=list)  # the ONNX nodes that are refused


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found of a teacher: its structure, then what running it showed."""

    inspection: "Inspection | None" = None
    methods: "Suitability | None" = None
    narrowed: "NarrowedSizes | None" = None
    warnings: "Sequence[Notice]" = ()  # about what was said of its images
    depth: "TeacherVerification | None" = None
    depth_skipped: str | None = None  # why the teacher was not run
    refused: Refusal | None = None


def inspect(  # noqa: PLR0917 - every option of a command is a parameter
    teacher: Annotated[str, typer.Argument(help=f"{TEACHER_HELP}.")],
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
    as_json: AsJson = False,
) -> None:
    """Say what a teacher is, which methods it can serve, and whether it computes and differentiates as it should.

    Needs no service. Exit code 4 where the teacher would be refused, 2 where more has to be said of it.
    """
    from dfkd_core.extras import require

    require("server")
    told = TeacherOptions(architecture, shape, layout, mean, std, range_, teacher_output)
    document = spec_document(spec, told, from_root(assign or []))
    said = teacher_in(document)
    network = NetworkOptions(weights=weights, pick=pick, arguments=arguments or [], logits=logits)
    with file_to_read(teacher, network, space=input_in(document)) as path, one_file(path) as one:
        found = examine(one, said)
    if as_json:
        out.print(to_json(found, indent=2, exclude={"inspection": {"narrowing"}}).decode())
    else:
        show_examination(out, found)
    if found.refused is not None:
        raise typer.Exit(Exit.REFUSED)
    raise typer.Exit(Exit.USAGE if _lacks_shape(found.inspection) else Exit.OK)


def from_root(assignments: Sequence[str]) -> list[str]:
    """Return the assignments of `--set` with paths from the root of the spec; they may start in its `teacher`.

    Raises:
        UsageError: one says something of the student or of the distillation.
    """
    from dfkd_core.spec.teacher import TeacherSpec

    within = {*TeacherSpec.model_fields}
    paths = [f"teacher.{one}" if one.partition("=")[0].partition(".")[0] in within else one for one in assignments]
    for path in paths:
        key = path.partition("=")[0]
        if not key.startswith("teacher."):
            raise UsageError(f"dfkd inspect looks at the teacher alone; --set {key} is for dfkd plan and dfkd submit")
    return paths


def examine(path: Path, spec: "TeacherSpec") -> Examination:
    """Inspect a file as POST /teachers does, then run it as the first stage of a job does."""
    from dfkd_core.errors import TeacherError
    from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
    from dfkd_core.inspection.narrowed import narrowed_sizes
    from dfkd_core.inspection.resolve import input_warnings, resolve_teacher
    from dfkd_core.inspection.suitability import suitability

    try:
        inspection, _ = inspect_with_input_space(path, spec)
    except TeacherError as error:
        return Examination(refused=_refusal(error))
    if _lacks_shape(inspection):
        return Examination(inspection=inspection, depth_skipped=f"it needs the {_missing(inspection)}")
    found = Examination(inspection=inspection, methods=suitability(inspection), narrowed=narrowed_sizes(inspection))
    try:
        resolved = resolve_teacher(spec, inspection)
    except TeacherError as error:
        return replace(found, refused=_refusal(error))
    return replace(found, warnings=input_warnings(resolved, inspection), **_run_teacher(path, resolved))


def _refusal(error: "TeacherError") -> Refusal:
    return Refusal(code=error.code, detail=error.detail, hint=error.hint, nodes=getattr(error, "nodes", []))


def _run_teacher(path: Path, spec: "TeacherSpec") -> dict[str, Any]:
    """Return the fields of `Examination` that running the teacher in a child process gives."""
    from dfkd_core.extras import MissingExtra, require
    from dfkd_core.report import TeacherVerification

    try:
        require("worker")
    except MissingExtra:
        return {"depth_skipped": "running it needs PyTorch and ONNX Runtime: pip install 'dfkd[worker]'"}
    request = {"path": str(path.resolve()), "spec": spec.model_dump(mode="json")}
    child = subprocess.run(
        [sys.executable, "-m", "dfkd_core.teachers"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        return {"depth_skipped": f"its process failed: {last[0]}"}
    answer = json.loads(child.stdout)
    if "error" in answer:
        return {"refused": Refusal(**answer["error"])}
    return {"depth": TeacherVerification.model_validate(answer["measured"])}


def show_examination(out: Console, found: Examination) -> None:
    """Print everything that was found, for people."""
    rows = [*_structure(found.inspection), *_methods(found.methods), *_narrowed(found.narrowed), *_depth_rows(found)]
    for name, value in rows:
        if value:
            out.print(f"{name:<16} {value}")
    for warning in [*(found.inspection.warnings if found.inspection else []), *found.warnings]:
        hint = None if warning.code == "teacher-batchnorm-folded" else warning.hint  # its hint is the export below
        display.show_complaint(out, "warning", warning.code, warning.detail, hint=hint)
    if found.inspection is not None and found.inspection.re_export is not None:
        out.print("to improve it, export again: " + "; ".join(found.inspection.re_export.because))
        out.print(f"  {found.inspection.re_export.line}")
    if found.refused is not None:
        display.show_complaint(out, "error", found.refused.code, found.refused.detail, hint=found.refused.hint)
        for node in found.refused.nodes:
            out.print(f"  {node}")


def _structure(found: "Inspection | None") -> Iterator[tuple[str, str | None]]:
    if found is None:
        return
    written = f", by {found.exporter} {found.exporter_version or ''}".rstrip() if found.exporter else ""
    yield "format", f"{found.format}{f', opset {found.opset}' if found.opset else ''}{written}"
    if _lacks_shape(found):
        yield "tensors", f"{found.parameters:,} numbers" if found.format == "safetensors" else None
        yield "unknown", f"parameters, cost, BatchNorm and methods: they need the {_missing(found)}"
        return
    yield "parameters", f"{found.parameters:,}"
    yield "multiply-adds", None if found.macs is None else f"{found.macs:,} for one image"
    kept = found.activation_bytes
    yield "activations", None if kept is None else f"{display.size(kept)} for one image"
    shape = None if found.input_shape is None else " x ".join(map(str, found.input_shape))
    interface = found.interface
    taken = None if interface is None else f"as {_taken(interface)}"
    yield "input", " ".join(filter(None, (found.input_name, shape, taken))) or None
    classes = f"{found.num_classes} classes" if found.num_classes else None
    returned = None if interface is None else f"as {_returned(interface)}"
    yield "output", " ".join(filter(None, (found.output_name, classes, returned))) or None
    yield "batch", found.batch
    yield "pixels", None if found.input_space is None else _pixels(found.input_space)
    present = f", {found.batchnorm.present} layers" if found.batchnorm.present else ""
    yield "batchnorm", f"{found.batchnorm.status}{present}"
    yield "operators", ", ".join(f"{name} {count}" for name, count in found.operators.items())
    yield "normalised", ", ".join(found.normalisations)
    yield "offers", ", ".join(found.offers)


def _lacks_shape(found: "Inspection | None") -> bool:
    """Return whether the shape of the images is not known, so that hardly anything is known of the network."""
    return found is not None and found.input_shape is None


def _missing(found: "Inspection") -> str:
    """Return what the options of the command have to say before the network is known."""
    options = "--architecture and --shape" if found.format == "safetensors" else "--shape"
    return f"shape of the images: {options} channels,height,width"


def _taken(interface: "TeacherInterface") -> str:
    """Return the element type and the layout of what the file takes."""
    axes = {2: "rows of numbers", 3: "(N, H, W)"}.get(interface.input_rank, interface.layout)
    return f"{interface.input_type} {axes}"


def _pixels(found: "InputEstimate") -> str:
    """Return which pixel values the file shows, and how well they fit."""
    values = f"range {found.range}" if found.mean is None else f"mean {found.mean}, std {found.std} of {found.range}"
    fit = "" if found.distance is None else f", distance {found.distance:g}"
    far = "" if found.next_distance is None else f" {found.next_distance:g}"
    following = "" if found.next_convention is None else f", next {found.next_convention}{far}"
    drawn = "" if found.pictures is None else f", on {found.pictures}"
    return f"{found.convention}: {values} ({found.certainty}, by {found.basis}{fit}{drawn}{following})"


def _returned(interface: "TeacherInterface") -> str:
    """Return the form and the shape of what the file returns."""
    sizes = ", ".join(["N", *map(str, interface.output_shape)])
    return f"{interface.output_type} {interface.output_form} ({sizes})"


def _methods(found: "Suitability | None") -> Iterator[tuple[str, str | None]]:
    if found is None:
        return
    yield "auto", f"{found.auto.method}, then {found.auto.fallback}: {found.auto.because}"
    yield "methods", ", ".join(found.served)
    for method in found.unserved:
        yield "not", f"{method.name}: needs {', '.join(method.needs)}; {method.because}"


def _narrowed(found: "NarrowedSizes | None") -> Iterator[tuple[str, str | None]]:
    if found is None:
        return
    for size in found.sizes:
        kept = f"{size.parameters:,} parameters, {size.macs:,} multiply-adds"
        yield "narrowed", f"width {size.width:g}: {kept}, {size.removed:.0%} removed"
    yield "narrowed", None if found.possible else "not possible"
    yield "", found.because and f"because {found.because}"


def _depth_rows(found: Examination) -> Iterator[tuple[str, str | None]]:
    yield "depth", found.depth_skipped and f"not looked into: {found.depth_skipped}"
    if found.depth is None:
        return
    depth = found.depth
    if depth.max_abs_diff is not None:
        batches = ", ".join(map(str, depth.batches))
        yield "parity", f"{depth.max_abs_diff:.1e} from ONNX Runtime, on batches of {batches}"
    yield "gradient", f"{depth.gradient_error:.1e} from finite differences"
    yield "dead inputs", f"{depth.dead_input_fraction:.1%}"
    yield "teaches by", depth.outputs
