"""Inspection (torch-free): what a teacher file is, found without PyTorch and, in the service, in a throw-away child.

`python -m dfkd_core.inspection.inspection` is that child: in its sandbox it reads one request from standard input.
"""

import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dfkd_core import errors
from dfkd_core.errors import DfkdError, OperatorUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.formats import EXPORT_LINE, SNIFF_BYTES, TeacherFormat, sniff
from dfkd_core.inspection.reexport import ReExport, export_line, re_export
from dfkd_core.notice import Notice
from dfkd_core.sandbox.detect import SandboxChoice, find_sandbox
from dfkd_core.sandbox.launch import exit_status, minimal_environment
from dfkd_core.sandbox.policy import ResourceLimits, SandboxPolicy, python_path
from dfkd_core.spec.config import TeacherSpec

log = logging.getLogger(__name__)

MAX_REPLY_BYTES = 4 * 2**20
MAX_FILES = 64
MAX_PROCESSES = 16
ONNX_COPIES = 5  # how often a large ONNX file lies in memory while it is inspected, file mapping included


class BatchNormFacts(BaseModel):
    """What is left of the teacher's BatchNormalization."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["present", "partial", "folded", "none", "unknown"] = Field(
        description="folded: the exporter merged the statistics into the convolutions; unknown: nobody can tell."
    )
    present: int = Field(description="Layers whose running statistics can be used.")


class Inspection(BaseModel):
    """What a teacher file is, without running it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["onnx", "safetensors"] = Field(description="Told from the content.")
    opset: int | None = Field(None, description="ONNX operator-set version.")
    parameters: int = Field(description="Learned numbers.")
    macs: int | None = Field(None, description="Multiply-adds of convolutions and matrix products for one image.")
    activation_bytes: int | None = Field(
        None, description="Float32 bytes of all that is computed for one image: what its gradient has to keep."
    )
    exporter: str | None = Field(
        None, description="What wrote the ONNX file: pytorch-dynamo, pytorch-legacy, or its own signature."
    )
    exporter_version: str | None = Field(None, description="Its version.")
    input_name: str | None = Field(None, description="Name of the ONNX graph's input.")
    output_name: str | None = Field(None, description="Name of the ONNX graph's output.")
    input_shape: list[int] | None = Field(
        None, description="[channels, height, width]; null where the file leaves it open."
    )
    num_classes: int | None = Field(None, description="Number of logits; null where the file alone does not tell.")
    batch: Literal["dynamic", "fixed"] = Field("dynamic", description="A fixed batch is rewritten.")
    batchnorm: BatchNormFacts
    operators: dict[str, int] = Field(default_factory=dict, description="How often each ONNX operator occurs.")
    normalisations: list[str] = Field(default_factory=list, description="What was changed to read the graph.")
    offers: list[str] = Field(default_factory=list, description="What methods may use: batchnorm, features.")
    re_export: ReExport | None = Field(None, description="The line that would improve it; null: nothing to gain.")
    warnings: list[Notice] = Field(default_factory=list, description="What the caller should know about the file.")


def inspect_file(path: Path, spec: TeacherSpec) -> Inspection:
    """Inspect in this process. Raises the TeacherError that fits; `spec` may say what the file leaves open."""
    with path.open("rb") as file:
        found = sniff(file.read(SNIFF_BYTES), path.name)
    if spec.format is not None and spec.format != found:
        raise TeacherMismatch(f"the file is {found}, the spec says {spec.format}", pointer="/teacher/format")
    if found is TeacherFormat.ONNX:
        return _inspect_onnx(path, spec)
    return _inspect_safetensors(path, spec)


def folded_warning(status: str, line: str = EXPORT_LINE) -> Notice:
    """The warning of a teacher whose statistics are, or may be, gone; `line` would keep them."""
    what = {
        "folded": "The exporter folded the BatchNormalization statistics into the convolutions",
        "partial": "The exporter folded some BatchNormalization statistics into the convolutions",
        "unknown": "The graph has no BatchNormalization; if the network had any, the exporter folded it",
    }[status]
    return Notice(
        code="teacher-batchnorm-folded",
        detail=f"{what}, so no method can use them.",
        hint=f"Re-export with the statistics kept: {line}",
    )


def _inspect_onnx(path: Path, spec: TeacherSpec) -> Inspection:
    from dfkd_core.inspection.producer import exporter_of
    from dfkd_core.onnx_import.batchnorm import batchnorm_of
    from dfkd_core.onnx_import.reader import read_plan

    if spec.architecture is not None:
        raise TeacherMismatch("an ONNX teacher brings its own architecture", pointer="/teacher/architecture")
    shape = None if spec.input is None else tuple(spec.input.shape)
    try:
        plan, model = read_plan(path, input_shape=shape)
    except TeacherMismatch as error:
        if error.pointer == "/teacher/input":
            return _inspect_unsized(path)
        raise
    status, present = batchnorm_of(plan)
    exporter, version = exporter_of(model)
    line = export_line(exporter, input_name=plan.input_name, output_name=plan.output_name, shape=plan.input_shape)
    return Inspection(
        format="onnx",
        exporter=exporter,
        exporter_version=version,
        opset=plan.opset,
        parameters=plan.parameters,
        macs=plan.macs,
        activation_bytes=4 * plan.activations,
        input_name=plan.input_name,
        output_name=plan.output_name,
        input_shape=list(plan.input_shape),
        num_classes=plan.num_classes,
        batch=plan.batch,
        batchnorm=BatchNormFacts(status=status, present=present),
        operators=dict(sorted(plan.operators.items())),
        normalisations=list(plan.normalisations),
        offers=(["batchnorm"] if present else []) + (["features"] if plan.ends_in_linear else []),
        re_export=re_export(line, batchnorm=status, batch=plan.batch, normalisations=plan.normalisations),
        warnings=[folded_warning(status, line)] if status in ("folded", "partial", "unknown") else [],
    )


def _inspect_unsized(path: Path) -> Inspection:
    """An ONNX graph that takes images of any size: only the file is checked; `door.resolve` then asks for the size."""
    from dfkd_core.onnx_import.ir.parse import opset_of, read_model

    model = read_model(path)
    return Inspection(
        format="onnx",
        opset=opset_of(model),
        parameters=sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.dims),
        batchnorm=BatchNormFacts(status="unknown", present=0),
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
    )


def _inspect_safetensors(path: Path, spec: TeacherSpec) -> Inspection:
    """Without a named architecture only the file itself is checked; `door.resolve` then asks for the name."""
    from dfkd_core.inspection.named_teacher import COUNTERS, describe_teacher
    from dfkd_core.inspection.safetensors_header import read_header, read_tensors

    header = read_header(path)
    known = spec.architecture is not None and spec.input is not None
    description = describe_teacher(spec, header) if known else None
    for _ in read_tensors(path, header):
        pass  # every tensor is checked for NaN as it is read
    norms = sum(name.endswith(".running_mean") for name in header)
    statistics = (".running_mean", ".running_var", *COUNTERS)
    learned = sum(math.prod(info.shape) for name, info in header.items() if not name.endswith(statistics))
    return Inspection(
        format="safetensors",
        parameters=learned,
        macs=None if description is None else description.macs,
        activation_bytes=None if description is None else 4 * description.activations,
        input_shape=None if description is None else list(description.input_shape),
        num_classes=None if description is None else description.num_classes,
        batchnorm=BatchNormFacts(status="present" if norms else "none", present=norms),
        normalisations=sorted({f"{info.dtype.lower()}-to-float32" for info in header.values()} & {"f16-to-float32"}),
        offers=(["batchnorm"] if norms else []) + (["features"] if description is not None else []),
    )


def inspect_in_child(
    path: Path,
    spec: TeacherSpec,
    *,
    timeout_seconds: float,
    memory_bytes: int,
    sandbox: SandboxChoice = "auto",
    hidden: tuple[Path, ...] = (),
) -> Inspection:
    """Inspect in a throw-away child: in a sandbox, with hard limits on time, memory and files and an empty environment.

    The sandbox shows `path` and never what lies below `hidden`. Raises what the child raised; TeacherInvalid where it
    crashed, was too slow or needed too much memory; SandboxUnavailable.
    """
    path = path.resolve()
    request = {"path": str(path), "spec": spec.model_dump(mode="json"), "memory_bytes": memory_bytes}
    policy = child_policy(path, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes, hidden=hidden)
    with find_sandbox(sandbox).start(
        [sys.executable, "-P", "-s", "-m", "dfkd_core.inspection.inspection"],
        policy,
        directory=Path("/"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(child)

        timer = threading.Timer(timeout_seconds, stop)
        timer.start()
        try:
            reply = _converse(child, json.dumps(request).encode())
            if len(reply) < MAX_REPLY_BYTES:
                child.wait()  # It closed its output, so it ends by itself, and the timer ends one that does not.
        finally:
            timer.cancel()
            _kill(child)
        code = exit_status(child.wait())
    return _result(reply, code, late=late.is_set())


def child_policy(
    path: Path, *, timeout_seconds: float, memory_bytes: int, hidden: tuple[Path, ...] = ()
) -> SandboxPolicy:
    """What an inspection finds in its sandbox: the file, and nothing to write to."""
    limits = ResourceLimits(
        address_bytes=memory_bytes,
        cpu_seconds=math.ceil(timeout_seconds),
        file_bytes=0,
        processes=MAX_PROCESSES,
        open_files=MAX_FILES,
    )
    return SandboxPolicy(limits=limits, inputs=(path,), hidden=hidden, environment=_environment())


def _environment() -> dict[str, str]:
    """Nothing of ours but where Python finds this package; one thread for whatever NumPy brings."""
    found = {"PYTHONPATH": python_path({}), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return minimal_environment(os.environ) | found


def _converse(child: subprocess.Popen[bytes], request: bytes) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(request)
        child.stdin.close()
    except BrokenPipeError:
        log.warning("the inspection died before it was asked")
    return child.stdout.read(MAX_REPLY_BYTES)


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
            os.killpg(child.pid, signal.SIGKILL)


def _result(reply: bytes, code: int, *, late: bool) -> Inspection:
    message = _message(reply)
    if "inspection" in message:
        return Inspection.model_validate(message["inspection"])
    if "error" in message:
        raise _rebuilt(message["error"])
    slow = late or -code in (signal.SIGXCPU, signal.SIGKILL)
    log.warning(
        "the inspection of a teacher failed", extra={"exit_code": code, "late": late, "fault": message.get("fault")}
    )
    if message.get("fault") == "MemoryError":
        raise TeacherInvalid("the teacher is too large to be inspected", hint="Upload a smaller model.")
    if slow:
        raise TeacherInvalid(
            "the inspection of the teacher took too long", hint="Upload a simpler export of the model."
        )
    raise TeacherInvalid("the inspection of the teacher crashed: the file is damaged or made to do so")


def _message(reply: bytes) -> dict[str, Any]:
    """What a child said that has read a stranger's file: something with the form of an answer, or nothing."""
    try:
        message = json.loads(reply)
        if "inspection" in message:
            Inspection.model_validate(message["inspection"])
        if "error" in message:
            _rebuilt(message["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _rebuilt(error: dict[str, Any]) -> DfkdError:
    kind = getattr(errors, str(error["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, DfkdError)):
        return TeacherInvalid("the inspection of the teacher crashed")
    if issubclass(kind, OperatorUnsupported):
        return kind(error["detail"], nodes=error["nodes"], hint=error["hint"])
    return kind(error["detail"], hint=error["hint"], pointer=error["pointer"])


def _check_size(path: Path, memory_bytes: int) -> None:
    """Refuse an ONNX file that could only fail later, as if it were broken; safetensors are read tensor by tensor."""
    with path.open("rb") as file:
        found = sniff(file.read(SNIFF_BYTES), path.name)
    most = memory_bytes // ONNX_COPIES
    if found is TeacherFormat.ONNX and path.stat().st_size > most:
        raise TeacherInvalid(
            "the teacher is too large to be inspected", hint=f"ONNX files of up to {most // 2**20} MiB are taken here."
        )


def _child() -> dict[str, Any]:
    request = json.load(sys.stdin)
    path = Path(request["path"])
    try:
        spec = TeacherSpec.model_validate(request["spec"])
        _check_size(path, int(request["memory_bytes"]))
        return {"inspection": inspect_file(path, spec).model_dump(mode="json")}
    except DfkdError as error:
        told = {"class": type(error).__name__, "detail": error.detail, "hint": error.hint, "pointer": error.pointer}
        return {"error": told | {"nodes": getattr(error, "nodes", [])}}
    except Exception as error:  # whatever a file made a library raise: the parent logs it and refuses the file
        return {"fault": type(error).__name__}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_child()))
