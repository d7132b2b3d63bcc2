"""Write a teacher's file from a network or from weights, read it back, compare it, and inspect it as the service does.

A file that fails a check is removed.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from dfkd_core.errors import TeacherError, TeacherInvalid, TeacherMismatch
from dfkd_core.exporting.checks import checked
from dfkd_core.exporting.code import network_from
from dfkd_core.exporting.logits import Logits
from dfkd_core.exporting.matching import load_into
from dfkd_core.exporting.named_weights import only_fitting, write_weights
from dfkd_core.exporting.network_copy import copied, undisturbed
from dfkd_core.exporting.onnx_writers import WRITERS, is_scripted, write_onnx
from dfkd_core.exporting.request import Exported, ExportRequest
from dfkd_core.exporting.weights import read_weights
from dfkd_core.spec.teacher import InputSpec, TeacherSpec

_NOISE = re.compile(r"\x1b\[[0-9;]*m| object at 0x[0-9a-f]+")
_FIXED_BATCH = re.compile(r"size\(\)\[0\] == (\d+)")  # a guard of torch.export
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
    if request.input_shape is None:
        raise TeacherMismatch("the shape of one image is not known", hint="Say it: --shape 3,32,32.")
    if request.weights is not None:
        weights, more = read_weights(request.weights, pick=request.pick)
        notes += more + load_into(network, weights)
    return export_module(
        network,
        request.output,
        input_shape=request.input_shape,
        mean=request.mean,
        std=request.std,
        logits=request.logits,
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
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_range: Sequence[float] | None = None,
    logits: str | int | None = None,
    opset: int = 18,
    batch: int | None = None,
    architecture: str | None = None,
    width: float | None = None,
    told: Sequence[str] = (),
) -> Exported:
    """Write a trained network as ONNX with its BatchNorm layers, or as safetensors if `architecture` names one of ours.

    The network is not changed: a copy in eval mode, on the CPU and in float32, is exported.

    `input_shape` is (C, H, W). File and network are compared on images that `mean`, `std` and `pixel_range` allow.
    `logits` names one of several outputs. Set `batch` only if the network needs a fixed batch size. `told` are the
    first lines of the result's field of that name.

    Raises:
        TeacherError: the network cannot be exported, or the service would not take it; the subclass says why.
    """
    space = InputSpec.model_validate(
        {"shape": list(input_shape), "mean": mean, "std": std, "range": pixel_range and list(map(float, pixel_range))}
    )
    spec = TeacherSpec(architecture=architecture, width=width, input=space)
    with undisturbed(), _replacing(output) as path:
        twin = Logits(copied(network), logits).eval()
        if architecture is not None:
            write_weights(twin.network.state_dict(), path, spec)
            found = checked(path, spec, list(told), network=twin, batch=batch)
        else:
            found = _written_as_onnx(twin, path, spec, opset=opset, batch=batch, told=told)
    norms = sum(isinstance(module, _STATISTICS) and module.track_running_stats for module in twin.modules())
    notes = list(found.told)
    if norms > found.inspection.batchnorm.present:
        notes.append(f"of {norms} BatchNorm layers the service will find {found.inspection.batchnorm.present}")
    return found.model_copy(update={"path": output, "told": notes})


def _written_as_onnx(
    network: Logits, path: Path, spec: TeacherSpec, *, opset: int, batch: int | None, told: Sequence[str]
) -> Exported:
    """Write the file with the first of the exporters that gives one which passes all checks.

    Raises:
        TeacherError: none does. A refusal of a file says more than the failure of an exporter, and the newer exporter's
            file more than the legacy one's.
    """
    assert spec.told_shape is not None
    images = torch.randn(batch or 2, *spec.told_shape, generator=torch.Generator().manual_seed(0))
    _check_takes(network, images)
    failures: list[tuple[str, Exception]] = []
    for writer in WRITERS:
        before = "".join(f": the {name} one failed ({_in_a_line(error)})" for name, error in failures)
        notes = [*told, f"exported by the {writer.name} exporter{before}"]
        try:
            write_onnx(writer, network, images, path, opset=opset, fixed=batch is not None)
            return checked(path, spec, notes, network=network, batch=batch)
        except Exception as error:  # the exporters' exceptions share no base class
            failures.append((writer.name, error))
    refusals = [error for _, error in failures if isinstance(error, TeacherError)]
    if refusals:
        raise refusals[-1]
    both = "; ".join(f"the {name} one: {_in_a_line(error)}" for name, error in failures)
    raise TeacherInvalid(
        f"PyTorch's exporters cannot write this network; {both}", hint=_hint_of_failure(network, str(failures[-1][1]))
    ) from failures[-1][1]


def _check_takes(network: Logits, images: Tensor) -> None:
    """Run the network: an error of its own must not look like one of the exporter.

    Raises:
        TeacherInvalid: it raises an exception.
    """
    try:
        with torch.no_grad():
            network(images)
    except TeacherError:
        raise
    except Exception as error:  # whatever the user's code raises
        shape = list(images.shape[1:])
        order = f", here {shape[2]},{shape[0]},{shape[1]}" if shape[2] < min(shape[:2]) else ""
        raise TeacherInvalid(
            f"the network fails on images of shape {list(images.shape)}: {_in_a_line(error)}",
            hint=f"A shape is channels, height, width{order}; the network takes one tensor of images.",
        ) from error


def _hint_of_failure(network: Logits, said: str) -> str:
    if is_scripted(network):
        return "TorchScript that the exporters cannot write has to be exported from the network's Python code."
    fixed = _FIXED_BATCH.search(said)
    if fixed is not None:
        return f"The network was made for batches of {fixed[1]}: say so with --batch {fixed[1]}, in Python batch=."
    return "torch.export needs a forward without branches on values; the service needs one on float images alone."


def _in_a_line(error: Exception) -> str:
    """Return the class of an exception, and the first line of what it says, without colours and addresses."""
    lines = _NOISE.sub("", str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


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
    """Write the weights of a checkpoint or a state dict as safetensors, checked against `architecture`.

    Without an architecture, the one of the catalogue is taken that has exactly these weights.

    Raises:
        TeacherMismatch: the weights are not those of the architecture, or of exactly one.
    """
    weights, notes = read_weights(source, pick=pick) if isinstance(source, Path) else (dict(source), [])
    shape = None if input_shape is None else InputSpec(shape=list(input_shape))
    spec = TeacherSpec(architecture=architecture, width=width, input=shape, num_classes=num_classes)
    if architecture is None:
        spec = spec.model_copy(update={"architecture": only_fitting(weights, spec)})
        notes.append(f"these are the weights of {spec.architecture}")
    with _replacing(output) as path:
        write_weights(weights, path, spec)
        found = checked(path, spec, notes)
    return found.model_copy(update={"path": output})


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yield a path to write to. The file is moved to `output` if the block succeeds and removed if it fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        yield path
        path.replace(output)
    finally:
        path.unlink(missing_ok=True)
