"""Write a teacher's file from a network or from weights, read it back, compare it, and inspect it as the service does.

A file that fails a check is removed.
"""

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from dfkd_core.architectures import ARCHITECTURES
from dfkd_core.errors import DfkdError, ParityError, TeacherInvalid, TeacherMismatch
from dfkd_core.exporting.code import Logits, load_into, network_from
from dfkd_core.exporting.request import Exported, ExportRequest
from dfkd_core.exporting.weights import read_weights
from dfkd_core.inspection.inspection import parse_file
from dfkd_core.inspection.named_teacher import describe_teacher
from dfkd_core.inspection.safetensors_header import TensorInfo, read_header, read_tensors
from dfkd_core.networks.interface import to_output
from dfkd_core.output.onnx_export import strip_documentation
from dfkd_core.output.provenance import file_facts
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import BATCHES, TOLERANCE, verification_facts, verify_teacher

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32"}
_STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def export_teacher(request: ExportRequest) -> Exported:
    """Serve a request. If its `source` names code, run that code, whose exceptions are passed on.

    Raises:
        TeacherError: the network, its weights or the file cannot serve as a teacher.
    """
    if not request.runs_code:
        return export_weights(
            Path(request.source),
            request.output,
            pick=request.pick,
            architecture=request.architecture,
            width=request.width,
            input_shape=request.input_shape,
            num_classes=request.num_classes,
        )
    network, notes = network_from(request.source, request.arguments), [f"ran {request.source} on this machine"]
    if request.weights is not None:
        weights, more = read_weights(request.weights, pick=request.pick)
        load_into(network, weights)
        notes += more
    if request.input_shape is None:
        raise TeacherMismatch("the shape of one image is not known", hint="Say it: --input 3,32,32.")
    return export_module(
        network,
        request.output,
        input_shape=request.input_shape,
        opset=request.opset,
        batch=request.batch,
        architecture=request.architecture,
        width=request.width,
        told=notes,
    )


def export_module(
    network: nn.Module,
    output: Path,
    *,
    input_shape: Sequence[int],
    opset: int = 18,
    batch: int | None = None,
    architecture: str | None = None,
    width: float | None = None,
    told: Sequence[str] = (),
) -> Exported:
    """Write a trained network as ONNX with its BatchNorm layers, or as safetensors if `architecture` names one of ours.

    The network is not changed. `input_shape` is (C, H, W). Set `batch` only if the network needs a fixed batch size.
    `told` are the first lines of the result's field of that name.
    """
    twin, notes = Logits(copy.deepcopy(network)).eval().cpu().float(), list(told)
    spec = TeacherSpec(architecture=architecture, width=width, input=InputSpec(shape=list(input_shape)))
    with _replacing(output) as path:
        if architecture is not None:
            _write_weights(twin.network.state_dict(), path, spec)
        else:
            notes.append(_write_onnx(twin, path, input_shape=input_shape, opset=opset, batch=batch))
        difference = _compared(twin, path, spec, batch=batch)
        found = _checked(path, spec, notes, max_abs_diff=difference)
    norms = sum(isinstance(module, _STATISTICS) and module.track_running_stats for module in twin.modules())
    if norms > found.inspection.batchnorm.present:
        notes.append(f"of {norms} BatchNorm layers the service will find {found.inspection.batchnorm.present}")
    return found.model_copy(update={"path": output, "told": notes})


def export_weights(
    source: Path | Mapping[str, Tensor],
    output: Path,
    *,
    pick: str | None = None,
    architecture: str | None = None,
    width: float | None = None,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> Exported:
    """Write the weights of a checkpoint or a state dict as safetensors, checked against `architecture` if it is named.

    Raises:
        TeacherMismatch: the weights are not those of the architecture.
    """
    weights, notes = read_weights(source, pick=pick) if isinstance(source, Path) else (dict(source), [])
    shape = None if input_shape is None else InputSpec(shape=list(input_shape))
    spec = TeacherSpec(architecture=architecture, width=width, input=shape, num_classes=num_classes)
    with _replacing(output) as path:
        _write_weights(weights, path, spec)
        found = _checked(path, spec, notes, max_abs_diff=None)
    if architecture is None:
        fitting = _fitting(weights, spec)
        known = f": {', '.join(fitting)} has exactly these" if fitting else ""
        notes.append(f"name teacher.architecture in the spec{known}")
    return found.model_copy(update={"path": output, "told": notes})


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Give a path to write to. The file is moved to `output` if the block succeeds and removed if it fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        yield path
        path.replace(output)
    finally:
        path.unlink(missing_ok=True)


def _write_onnx(network: nn.Module, path: Path, *, input_shape: Sequence[int], opset: int, batch: int | None) -> str:
    """Write one ONNX file that keeps BatchNormalization as it is; return a line that says which exporter wrote it.

    The legacy exporter is tried first, because it keeps all statistics. The newer one can trace some networks that the
    legacy one cannot.
    """
    import onnx

    images = torch.randn(batch or 2, *input_shape, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporters warn about themselves and about constants in traces
        network(images)  # an error of the network itself must not look like one of the exporter
        try:
            _export_legacy(network, images, path, opset=opset, fixed=batch is not None)
            how = f"exported by the legacy exporter, opset {opset}"
        except Exception as error:  # the exporter's exceptions share no base class
            _export_dynamo(network, images, path, opset=max(opset, 18), fixed=batch is not None)
            how = f"exported by the newer exporter: the legacy one refused ({type(error).__name__})"
    model = onnx.load(path)
    strip_documentation(model)  # the documentation holds paths of this machine
    path.write_bytes(model.SerializeToString(deterministic=True))
    return how


def _export_legacy(network: nn.Module, images: Tensor, path: Path, *, opset: int, fixed: bool) -> None:
    torch.onnx.export(
        network,
        (images,),
        str(path),
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=opset,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes=None if fixed else {"images": {0: "batch"}, "logits": {0: "batch"}},
    )


def _export_dynamo(network: nn.Module, images: Tensor, path: Path, *, opset: int, fixed: bool) -> None:
    torch.onnx.export(
        network,
        (images,),
        str(path),
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
        opset_version=opset,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=None if fixed else ({0: torch.export.Dim("batch")},),
    )


def _write_weights(weights: Mapping[str, Tensor], path: Path, spec: TeacherSpec) -> None:
    """Check names and shapes against the architecture, write the file, and compare it with `weights`.

    Raises:
        TeacherMismatch: names or shapes are not those of the architecture.
        ParityError: the file does not hold what was written.
    """
    from safetensors.torch import save

    if spec.architecture is not None:
        try:
            describe_teacher(spec, _header(weights))
        except TeacherMismatch as error:
            fitting = _fitting(weights, spec)
            hint = f"These weights are those of {', '.join(fitting)}." if fitting else error.hint
            raise TeacherMismatch(error.detail, hint=hint, pointer=error.pointer) from error
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    path.write_bytes(save(state))
    for name, array in read_tensors(path, read_header(path)):
        if not torch.equal(torch.from_numpy(array.copy()), state[name].to(torch.from_numpy(array.copy()).dtype)):
            raise ParityError(f"tensor {name} is not read back as it was written")


def _header(weights: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    """Return the header that a file of these weights would have, with offsets left at 0."""
    unknown = [name for name, tensor in weights.items() if tensor.dtype not in _DTYPES]
    if unknown:
        raise TeacherInvalid(f"tensor {unknown[0]} has a type that teachers do not have", hint="Use model.float().")
    return {name: TensorInfo(_DTYPES[one.dtype], tuple(one.shape), 0, 0) for name, one in weights.items()}


def _fitting(weights: Mapping[str, Tensor], spec: TeacherSpec) -> list[str]:
    """Return the architectures of the catalogue that have exactly these weights, at the width in `spec`."""
    found: list[str] = []
    for name in ARCHITECTURES if spec.told_shape is not None else ():
        try:
            describe_teacher(spec.model_copy(update={"architecture": name}), _header(weights))
        except DfkdError:
            continue
        found.append(name)
    return found


@torch.no_grad()
def _compared(network: nn.Module, path: Path, spec: TeacherSpec, *, batch: int | None) -> float:
    """Return the largest difference between what the network returns and the service's reading of the file.

    Raises:
        ParityError: the results differ in shape, or by more than the tolerance.
    """
    teacher, generator = load_teacher(path, spec), torch.Generator().manual_seed(0)
    assert spec.told_shape is not None
    worst = 0.0
    for count in BATCHES if batch is None else (batch,):
        images = torch.randn(count, *spec.told_shape, generator=generator)
        expected, found = network(images), to_output(teacher.label(images), teacher.interface).float()
        if expected.shape != found.shape:
            raise ParityError(f"the network returns {tuple(expected.shape)}, the file {tuple(found.shape)}")
        difference = (expected - found).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):  # NaN fails too
            raise ParityError(
                f"the file and the network differ by {difference:.3g} on random images",
                hint="Names and shapes fit, what is computed does not: is it another variant of the architecture?"
                if spec.architecture
                else "Does the network draw at random, or depend on more than its images, in eval mode?",
            )
        worst = max(worst, difference)
    return worst


def _checked(path: Path, spec: TeacherSpec, notes: list[str], *, max_abs_diff: float | None) -> Exported:
    """Inspect the file as the service does before a job, and verify it as a job does first.

    Raises:
        TeacherError: the inspection or the verification refuses the file.
    """
    inspection, parsed = parse_file(path, spec)
    depth = None
    if inspection.format == "onnx" or spec.architecture is not None:
        teacher = load_teacher(path, spec, parsed=parsed)
        found = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0), parsed=parsed)
        depth = verification_facts(found)
    return Exported(
        path=path,
        file=file_facts(path),
        told=notes,
        max_abs_diff=max_abs_diff,
        inspection=inspection,
        depth=depth,
        teacher=spec,
    )
