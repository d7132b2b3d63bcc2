"""Exports a student as one self-contained ONNX file and as safetensors, and compares the ONNX file with PyTorch.

The bytes of two equal runs are equal: the files hold no paths, stack traces, times or host names.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import dfkd_core
from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.errors import ExportMismatch, StudentError
from dfkd_core.interface import TeacherInterface, plain_interface
from dfkd_core.library_watch import beating
from dfkd_core.networks.interface import ServedNetwork, from_output, to_input
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output.evaluate import file_runtime
from dfkd_core.pulse import Pulse
from dfkd_core.report import Parity
from dfkd_core.spec.config import PRUNED_TEACHER
from dfkd_core.students.build import Network, build_network

if TYPE_CHECKING:
    import onnx

PARITY_BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4  # largest allowed difference, as a share of the larger of 1 and the largest number returned
TOLERANCES = {"float32": TOLERANCE, "float64": TOLERANCE, "float16": 2e-3}  # by the type of what the file returns
INPUT, OUTPUT = "images", "logits"  # names while the student is traced
WRAPPED = "network."  # before the names of the weights of a network in a `ServedNetwork`
# Each operator set is written with the oldest IR version that may carry it, so that most runtimes can read the file.
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10}
METADATA_KEY = "dfkd_student"  # the only key, since safetensors writes several keys in random order
EXPORTER_REMARKS = "torch.onnx._internal.exporter._registration"


def export_onnx(
    student: nn.Module,
    path: Path,
    interface: TeacherInterface,
    space: InputSpace,
    *,
    opset: int = 18,
    pulse: Pulse | None = None,
) -> None:
    """Write the student in eval mode as one ONNX file that takes and returns what `interface` says.

    The student takes images (N, C, H, W) of `space` and returns logits (N, num_classes). The file's batch is dynamic.
    The student itself is not changed. Batch normalisations are folded into convolutions. The bytes depend only on the
    weights, the arguments and the library versions. `onnx.checker` checks the file. `pulse` beats meanwhile.
    """
    import onnx

    pulse = pulse or Pulse()
    with beating(pulse):
        model = _traced(student, interface, space, opset=opset)
    strip_documentation(model)
    inner = [tensor.name for tensor in model.graph.initializer if tensor.name.startswith(WRAPPED)]
    rename_values(model.graph, {name: name.removeprefix(WRAPPED) for name in inner})
    rename_values(model.graph, {INPUT: interface.input_name, OUTPUT: interface.output_name})
    del model.graph.value_info[:]  # readers of the file infer these shapes again
    model.ir_version = IR_VERSIONS[opset]
    model.producer_name, model.producer_version = "dfkd", dfkd_core.__version__
    model.graph.name = "student"
    with beating(pulse):
        onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


@torch.no_grad()
def check_parity(
    student: nn.Module,
    path: Path,
    interface: TeacherInterface,
    space: InputSpace,
    *,
    images_by_batch: Iterable[Tensor],
    pulse: Pulse | None = None,
) -> Parity:
    """Compare ONNX Runtime on the file with PyTorch on the student for each batch of images (N, C, H, W) of `space`.

    Both are given what the file takes, and compared in what it returns. Images whose class differs within the tolerance
    are counted in `top1_mismatches`. Each batch is a beat of `pulse`.

    Raises:
        ExportMismatch: what they return differs by more than the tolerance, or the classes differ on an image whose
            largest logit exceeds the second largest by more than the tolerance.
    """
    reference = ServedNetwork(copy.deepcopy(student), interface, space).eval().cpu()
    run, tolerance, pulse = file_runtime(path, interface), TOLERANCES[interface.output_type], pulse or Pulse()
    found, batches = [], []
    for images in images_by_batch:
        batches.append(len(images))
        inputs = to_input(images.cpu(), interface, space)
        found.append(_compared(reference(inputs), run(inputs), interface, tolerance))
        pulse.beat()
    if not found:
        raise ValueError("parity needs images")
    return Parity(
        max_abs_diff=max(difference for difference, _, _ in found),
        max_scaled_diff=max(scaled for _, scaled, _ in found),
        tolerance=tolerance,
        top1_mismatches=sum(mismatches for _, _, mismatches in found),
        batches=batches,
    )


def save_weights(student: nn.Module, path: Path, description: NetworkDescription) -> None:
    """Write the student's parameters and running statistics as safetensors.

    The metadata holds the arguments of `describe`, from which `load_student_weights` builds the network again.
    """
    from safetensors.torch import save

    state, wanted = student.state_dict(), description.tensors()
    _check_belongs(state, description)
    kept = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if name in wanted or name.endswith(".num_batches_tracked")
    }
    text = json.dumps(_identity(description), sort_keys=True, separators=(",", ":"))
    path.write_bytes(save(kept, metadata={METADATA_KEY: text}))


def save_pruned_weights(student: nn.Module, path: Path, *, width: float) -> None:
    """Write the parameters and running statistics of a narrowed teacher. Only the ONNX file holds the graph."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    text = json.dumps({"architecture": PRUNED_TEACHER, "width": width}, sort_keys=True, separators=(",", ":"))
    path.write_bytes(save(state, metadata={METADATA_KEY: text}))


def load_student_weights(path: Path) -> tuple[Network, NetworkDescription]:
    """Build the student that `save_weights` wrote, in eval mode, on the CPU.

    Raises:
        StudentError: `save_weights` did not write the file.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    if text is None:
        raise StudentError(f"{path.name} does not say which architecture its weights belong to")
    identity = json.loads(text)
    if identity["architecture"] == PRUNED_TEACHER:
        raise StudentError(
            f"{path.name} holds the weights of a narrowed teacher, whose graph it does not know",
            hint="Use student.onnx, which has both.",
        )
    description = describe(**identity)
    network = build_network(description, generator=torch.Generator().manual_seed(0))
    _check_belongs(weights, description)
    network.load_state_dict(weights)
    return network.eval(), description


def _traced(student: nn.Module, interface: TeacherInterface, space: InputSpace, *, opset: int) -> "onnx.ModelProto":
    twin = copy.deepcopy(student).eval().cpu().requires_grad_(False)
    example = to_input(torch.zeros(2, *space.shape), interface, space)  # a batch of 1 could be taken for a constant
    with _without_remarks():
        program = torch.onnx.export(
            twin if _is_plain(interface, space) else ServedNetwork(twin, interface, space).eval(),
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _is_plain(interface: TeacherInterface, space: InputSpace) -> bool:
    """Return whether the file takes and returns what the network does, names aside."""
    plain = plain_interface(interface.num_classes)
    names = {"input_name": plain.input_name, "output_name": plain.output_name}
    return interface.model_copy(update=names) == plain and not space.is_scaled


def rename_values(graph: "onnx.GraphProto", names: Mapping[str, str]) -> None:
    """Rename values of the graph. Another value that already has a new name gets an underscore behind its own."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    new = {name: target for name, target in names.items() if name != target}
    for target in names.values():
        if target in taken and target not in names:
            free = f"{target}_"
            while free in taken or free in names.values():
                free += "_"
            taken.add(free)
            new[target] = free
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [new.get(name, name) for name in values]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep two messages of the exporter out of logs and warnings, because users cannot act on them."""
    log = logging.getLogger(EXPORTER_REMARKS)
    log.addFilter(_is_worth_logging)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        log.removeFilter(_is_worth_logging)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("torchvision is not installed")


def strip_documentation(message: Any) -> None:  # Any: protobuf's messages share no typed face
    """Clear documentation and metadata in a protobuf message and everything below it."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                strip_documentation(child)


def _compared(
    expected: Tensor, found: Tensor, interface: TeacherInterface, tolerance: float
) -> tuple[float, float, int]:
    """Compare what is returned: largest absolute and scaled difference, and number of other classes.

    Raises:
        ExportMismatch: the difference is too large; see `check_parity`.
    """
    if expected.shape != found.shape:
        raise ExportMismatch(f"the exported student returns {tuple(found.shape)}, not {tuple(expected.shape)}")
    expected, found = expected.float(), found.float()
    difference = (expected - found).abs().max().item()
    scale = max(1.0, expected.abs().max().item())
    if not difference / scale <= tolerance:  # NaN fails too
        raise ExportMismatch(
            f"ONNX Runtime and PyTorch differ by {difference:.3g} on numbers of up to {scale:.3g}",
            hint="Export at another opset (export.opset), and report the student's architecture and width.",
        )
    logits = from_output(expected, interface)
    differs = logits.argmax(1) != from_output(found, interface).argmax(1)
    leads = _lead(logits) > tolerance * scale
    if bool((differs & leads).any()):
        raise ExportMismatch(f"ONNX Runtime and PyTorch decide differently on {int((differs & leads).sum())} images")
    return difference, difference / scale, int(differs.sum())


def _lead(logits: Tensor) -> Tensor:
    """Return the largest logit minus the second largest: (N,)."""
    best = logits.topk(min(2, logits.shape[1]), dim=1).values
    return best[:, 0] - best[:, -1]


def _identity(description: NetworkDescription) -> dict[str, Any]:
    """Return the arguments with which `describe` gives this description."""
    return {
        "architecture": description.name,
        "input_shape": list(description.input_shape),
        "num_classes": description.num_classes,
        "width": description.width,
        "options": dict(description.options),
    }


def _check_belongs(tensors: Mapping[str, Tensor], description: NetworkDescription) -> None:
    """Check names and shapes of the tensors; tensors that the description does not name, such as counters, are ignored.

    Raises:
        StudentError: a tensor of the description is missing or has another shape.
    """
    wanted = description.tensors()
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name in wanted}
    if found != wanted:
        raise StudentError(f"these weights are not those of {description.name} at width {description.width:g}")
