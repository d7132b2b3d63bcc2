"""`dfkd export-teacher`: make a file for the service from a trained network or its weights, on the user's own machine.

A child process does the work, `python -m dfkd_core.exporting`: PyTorch and the user's code stay out of this process.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from dfkd.cli import display
from dfkd.cli.options import AsJson, ChosenLogits, Mean, Pick, Std, Weights, numbers
from dfkd.errors import BadTeacher, UsageError

if TYPE_CHECKING:
    from dfkd_core.exporting.request import Exported, ExportRequest
    from dfkd_core.inspection.inspection import Inspection

out = display.console(stderr=False)
err = display.console(stderr=True)


def export_teacher(  # noqa: PLR0917 - every option of a command is a parameter
    source: Annotated[
        str,
        typer.Argument(
            help="package.module:name or file.py:name of a network, or of what returns one; or a file of weights."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; teacher.onnx or teacher.safetensors.")
    ] = None,
    weights: Weights = None,
    pick: Pick = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--arg", "--set", help="name=value: an argument of the function or class; repeat for more."),
    ] = None,
    shape: Annotated[str | None, typer.Option("--shape", "--input", help="channels,height,width of one image.")] = None,
    mean: Mean = None,
    std: Std = None,
    logits: ChosenLogits = None,
    architecture: Annotated[
        str | None, typer.Option(help="One of `dfkd students`: check against it, and write safetensors.")
    ] = None,
    width: Annotated[float | None, typer.Option(help="Width multiplier of the architecture.", min=0.001)] = None,
    classes: Annotated[int | None, typer.Option(help="Classes; read from the weights by default.", min=2)] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set.", min=11, max=22)] = 18,
    batch: Annotated[int | None, typer.Option(help="Fixed batch size; any by default.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Write a teacher's file from your network or its weights, check it, and say what the service will see.

    Code that SOURCE names is imported and run, here, on your machine. Files of weights are opened without running
    anything in them. Nothing is sent anywhere.
    """
    from dfkd_core.spec import overrides

    sizes = None if shape is None else list(overrides.shape(shape))
    request = export_request(
        source=source,
        output=output or Path("teacher.onnx"),
        weights=weights,
        pick=pick,
        arguments=overrides.arguments(arguments or []),
        input_shape=sizes,
        mean=numbers("mean", mean),
        std=numbers("std", std),
        logits=logits,
        architecture=architecture,
        width=width,
        num_classes=classes,
        opset=opset,
        batch=batch,
    )
    if output is None and (architecture is not None or not request.runs_code):
        request = request.model_copy(update={"output": Path("teacher.safetensors")})
    exported = run_export(request)
    if as_json:
        out.print(exported.model_dump_json(indent=2))
    else:
        show_exported(out, exported)


def export_request(**values: object) -> "ExportRequest":
    """Return the options as a request to the child.

    Raises:
        UsageError: an option is out of bounds.
    """
    from dfkd_core.exporting.request import ExportRequest

    try:
        return ExportRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def run_export(request: "ExportRequest") -> "Exported":
    """Let a child process export the teacher. What the user's code prints appears on standard error.

    Raises:
        MissingExtra: libraries that an export needs are not installed.
        UsageError: the source is neither code nor a file.
        BadTeacher: the export failed.
    """
    from dfkd_core.exporting.request import Exported
    from dfkd_core.extras import MissingExtra, require_export

    require_export()
    if request.runs_code:
        err.print(f"importing and running {request.source}: your code, on this machine")
    elif not Path(request.source).is_file():
        raise UsageError(f"there is no file {request.source!r}, and it is not package.module:name or file.py:name")
    child = subprocess.run(
        [sys.executable, "-P", "-m", "dfkd_core.exporting"],
        input=request.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        outcome = json.loads(child.stdout)
    except ValueError:
        raise BadTeacher(f"the export ended with status {child.returncode}", code="export-failed") from None
    if "missing" in outcome:
        raise MissingExtra("worker", [outcome["missing"]])
    if "error" in outcome:
        raise BadTeacher(**outcome["error"])
    return Exported.model_validate_json(json.dumps(outcome["exported"]))


def show_exported(to: Console, exported: "Exported") -> None:
    """Print what was done, what the service will see, and the command that submits the file."""
    for line in exported.told:
        to.print(line)
    to.print(f"wrote {exported.path}: {exported.file.bytes} bytes, sha256 {exported.file.sha256}")
    _show_inspection(to, exported.inspection)
    if exported.max_abs_diff is not None:
        to.print(f"  file against network   logits differ by {exported.max_abs_diff:.2g} at most")
    if exported.depth is not None:
        if exported.depth.max_abs_diff is not None:
            to.print(f"  our reading            differs from ONNX Runtime by {exported.depth.max_abs_diff:.2g} at most")
        to.print(f"  gradient               relative error {exported.depth.gradient_error:.2g}")
    to.print(f"submit it with: dfkd submit {exported.path} --student NAME{_assignments(exported)}")


def _show_inspection(to: Console, found: "Inspection") -> None:
    to.print("the service will see:")
    shape = "not told" if found.input_shape is None else " × ".join(map(str, found.input_shape))
    facts = {
        "format": found.format if found.opset is None else f"{found.format}, opset {found.opset}, {found.batch} batch",
        "parameters": f"{found.parameters}",
        "multiply-adds": "unknown" if found.macs is None else f"{found.macs}",
        "images": shape,
        "classes": "not told" if found.num_classes is None else f"{found.num_classes}",
        "BatchNorm": f"{found.batchnorm.status}, {found.batchnorm.present} layers with statistics",
        "offers to methods": ", ".join(found.offers) or "nothing",
    }
    for name, text in facts.items():
        to.print(f"  {name:<22} {text}")
    for warning in found.warnings:
        display.show_complaint(to, "warning", warning.code, warning.detail, hint=warning.hint)


def _assignments(exported: "Exported") -> str:
    """Return the options of `dfkd submit` for what the spec must say of this file."""
    spec, space = exported.teacher, exported.teacher.input
    facts = {"architecture": spec.architecture, "width": spec.width}
    given = "".join(f" --set teacher.{name}={value}" for name, value in facts.items() if value is not None)
    if space is None or space.shape is None:
        return given
    given += f" --shape {','.join(map(str, space.shape))}"
    if space.mean is None or space.std is None:
        return f"{given} --mean … --std …"
    return f"{given} --mean {_joined(space.mean)} --std {_joined(space.std)}"


def _joined(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
