"""Inspection (torch-free): reads the facts of a teacher file without PyTorch and without running the network.

The service inspects a file in a throw-away child process; see `child`.
"""

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from dfkd_core.architectures.cost import NetworkCost, cost_of
from dfkd_core.errors import TeacherMismatch
from dfkd_core.input_estimate import InputEstimate
from dfkd_core.inspection.formats.detection import TeacherFormat, teacher_format
from dfkd_core.inspection.reexport import EXPORT_LINE, ReExport, export_line, re_export
from dfkd_core.interface import TeacherInterface, plain_interface
from dfkd_core.narrowing.figures import Narrowing
from dfkd_core.notice import Notice
from dfkd_core.spec.teacher import TeacherSpec

if TYPE_CHECKING:  # the service imports this module and must not load onnx
    from dfkd_core.onnx_import.reader import ParsedOnnx


class BatchNormFacts(BaseModel):
    """How many BatchNormalization layers the file still has, and why others may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["present", "partial", "folded", "none", "unknown"] = Field(
        description="folded: the exporter merged the statistics into the convolutions; unknown: nobody can tell."
    )
    present: int = Field(description="Layers whose running statistics can be used.")


class Inspection(BaseModel):
    """The facts of a teacher file that can be read without running the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["onnx", "safetensors"] = Field(description="Told from the content.")
    opset: int | None = Field(None, description="ONNX operator-set version.")
    parameters: int = Field(description="Learned numbers.")
    macs: int | None = Field(None, description="Multiply-adds of convolutions and matrix products for one image.")
    activation_bytes: int | None = Field(
        None, description="Float32 bytes of all that is computed for one image: what its gradient has to keep."
    )
    cost: NetworkCost | None = Field(None, description="What one image costs, as far as a plan needs to know.")
    exporter: str | None = Field(
        None, description="What wrote the ONNX file: pytorch-dynamo, pytorch-legacy, or its own signature."
    )
    exporter_version: str | None = Field(None, description="Its version.")
    input_name: str | None = Field(None, description="Name of the ONNX graph's input.")
    output_name: str | None = Field(None, description="Name of the ONNX graph's output.")
    interface: TeacherInterface | None = Field(
        None, description="What the file takes and returns; the student's file will take and return the same."
    )
    input_shape: list[int] | None = Field(
        None, description="[channels, height, width]; null where the file leaves it open."
    )
    input_space: InputEstimate | None = Field(
        None,
        description="Which pixel values the network was trained on, as its file shows; null where not looked into.",
    )
    num_classes: int | None = Field(None, description="Number of classes; null where the file alone does not tell.")
    batch: Literal["dynamic", "fixed"] = Field("dynamic", description="A fixed batch is rewritten.")
    batchnorm: BatchNormFacts
    operators: dict[str, int] = Field(default_factory=dict, description="How often each ONNX operator occurs.")
    normalisations: list[str] = Field(default_factory=list, description="What was changed to read the graph.")
    offers: list[str] = Field(default_factory=list, description="What methods may use: batchnorm, features.")
    narrowing: Narrowing | None = Field(
        None,
        description="How the cost of a narrowed copy follows from its channels; null where the graph is unknown.",
    )
    re_export: ReExport | None = Field(None, description="How to export a better file, if one is possible.")
    warnings: list[Notice] = Field(default_factory=list, description="What the caller should know about the file.")


def inspect_file(path: Path, spec: TeacherSpec) -> Inspection:
    """Inspect a file in this process; `spec` supplies facts that the file leaves open, such as the image size.

    Raises:
        TeacherError: the file cannot serve as a teacher; the subclass says why.
    """
    return parse_file(path, spec)[0]


def parse_file(path: Path, spec: TeacherSpec) -> tuple[Inspection, "ParsedOnnx | None"]:
    """Return the inspection of a file and the parsed graph of an ONNX file whose image size is known, else None.

    Raises:
        TeacherError: the file cannot serve as a teacher; the subclass says why.
    """
    found = teacher_format(path, claimed=spec.format)
    if found is TeacherFormat.ONNX:
        return _parse_onnx(path, spec)
    return _inspect_safetensors(path, spec), None


def folded_warning(status: str, line: str | None = EXPORT_LINE) -> Notice:
    """Return the warning that a teacher's statistics are, or may be, folded.

    `line` exports a file that keeps them; None: no call of the exporter does.
    """
    what = {
        "folded": "The exporter folded the BatchNormalization statistics into the convolutions",
        "partial": "The exporter folded some BatchNormalization statistics into the convolutions",
        "unknown": "The graph has no BatchNormalization; nobody can tell whether the network had any that was folded",
    }[status]
    return Notice(
        code="teacher-batchnorm-folded",
        detail=f"{what}, so no method can use them.",
        hint="No call of the exporter keeps the statistics. Choose a method that needs none, or leave it to auto."
        if line is None
        else f"Re-export with the statistics kept: {line}",
    )


def double_warning() -> Notice:
    """Return the warning that a teacher of float64 is computed in float32."""
    return Notice(
        code="teacher-float64",
        detail="The teacher's weights or images are float64; it is computed, compared and distilled in float32.",
        hint=None,
    )


def _parse_onnx(path: Path, spec: TeacherSpec) -> tuple[Inspection, "ParsedOnnx | None"]:
    from dfkd_core.onnx_import.reader import read_plan

    if spec.architecture is not None:
        raise TeacherMismatch("an ONNX teacher brings its own architecture", pointer="/teacher/architecture")
    try:
        parsed = read_plan(path, input_shape=spec.told_shape, layout=spec.told_layout, output=spec.output)
    except TeacherMismatch as error:
        if error.pointer == "/teacher/input":
            return _inspect_unsized(path), None
        raise
    return _inspection_of(parsed), parsed


def _inspection_of(parsed: "ParsedOnnx") -> Inspection:
    from dfkd_core.inspection.network_cost import cost_of_plan
    from dfkd_core.narrowing.counting import narrowing_of
    from dfkd_core.onnx_import.batchnorm import batchnorm_of
    from dfkd_core.onnx_import.producer import exporter_of

    plan, model = parsed
    status, present = batchnorm_of(plan, model)
    exporter, version = exporter_of(model)
    interface = plan.interface
    names = {"input_name": interface.input_name, "output_name": interface.output_name}
    outputs = [output.name for output in model.graph.output]
    line = export_line(exporter, interface, outputs=outputs, shape=plan.input_shape)
    return Inspection(
        format="onnx",
        exporter=exporter,
        exporter_version=version,
        opset=plan.opset,
        parameters=plan.parameters,
        macs=plan.macs,
        activation_bytes=4 * plan.activations,
        cost=cost_of_plan(plan),
        **names,
        interface=interface,
        input_shape=list(plan.input_shape),
        num_classes=plan.num_classes,
        batch=plan.batch,
        batchnorm=BatchNormFacts(status=status, present=present),
        operators=dict(sorted(plan.operators.items())),
        normalisations=list(plan.normalisations),
        offers=(["batchnorm"] if present else []) + (["features"] if plan.ends_in_linear else []),
        narrowing=narrowing_of(plan),
        re_export=re_export(line, batchnorm=status, batch=plan.batch),
        warnings=[
            *([folded_warning(status, line)] if status in ("folded", "partial", "unknown") else []),
            *([double_warning()] if "float64-to-float32" in plan.normalisations else []),
            *_output_warnings(interface, is_embedding=plan.is_embedding, later_output=plan.later_output),
        ],
    )


def _output_warnings(interface: TeacherInterface, *, is_embedding: bool, later_output: str | None) -> list[Notice]:
    """Return warnings about outputs that may not be what a classifier returns."""
    from dfkd_core.onnx_import.ir.parse import readable

    found = []
    if later_output is not None:
        chosen, later = readable(interface.output_name), readable(later_output)
        found.append(
            Notice(
                code="teacher-output-not-last",
                detail=f"The network computes the output {later} from the output {chosen}, which may hold features. It "
                f"is taken as logits of {interface.num_classes} classes.",
                hint=f"If {later} holds the classes, name it in teacher.output.",
            )
        )
    if is_embedding:
        found.append(
            Notice(
                code="teacher-looks-like-embedding",
                detail="The outputs are scaled to length 1, as those of an embedding are. They are taken as logits of "
                f"{interface.num_classes} classes; a student need not keep distances between embeddings.",
                hint="Give a classifier: export the network with its classification layer.",
            )
        )
    if interface.is_binary and interface.output_form == "logits":
        found.append(
            Notice(
                code="teacher-one-number",
                detail="The teacher returns one number for each image. It is taken as the logit of the second of two "
                "classes: above 0 the second, below 0 the first.",
                hint="Do not use a student of this job if the number is a measurement, such as an age.",
            )
        )
    return found


def _inspect_unsized(path: Path) -> Inspection:
    """Inspect only the file of an ONNX graph that takes images of any size; `resolve` then asks for the size."""
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
    """Inspect a safetensors file.

    If the spec names no architecture or no input, only the file itself is checked; `resolve` then asks for the name.
    """
    from dfkd_core.inspection.formats.safetensors_header import read_header, read_tensors
    from dfkd_core.inspection.named_teacher import COUNTERS, describe_teacher
    from dfkd_core.narrowing.catalogue import plan_of
    from dfkd_core.narrowing.counting import narrowing_of

    header = read_header(path)
    if spec.output is not None:
        raise TeacherMismatch("only ONNX graphs have named outputs", pointer="/teacher/output")
    if spec.told_layout == "NHWC":
        raise TeacherMismatch(
            "the architectures of the catalogue take their channels first (NCHW)", pointer="/teacher/input/layout"
        )
    known = spec.architecture is not None and spec.told_shape is not None
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
        cost=None if description is None else cost_of(description),
        interface=None if description is None else plain_interface(description.num_classes),
        input_shape=None if description is None else list(description.input_shape),
        num_classes=None if description is None else description.num_classes,
        batchnorm=BatchNormFacts(status="present" if norms else "none", present=norms),
        normalisations=sorted({f"{info.dtype.lower()}-to-float32" for info in header.values()} & {"f16-to-float32"}),
        offers=(["batchnorm"] if norms else []) + (["features"] if description is not None else []),
        narrowing=None if description is None else narrowing_of(plan_of(description)),
    )
