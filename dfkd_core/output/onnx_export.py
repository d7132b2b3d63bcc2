"""Student → one self-contained ONNX file, compared with PyTorch on fresh images; and its weights as safetensors.

Files hold nothing that differs between two equal runs: no paths, stack traces, times or host names.
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import dfkd_core
from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.errors import ExportMismatch, StudentError
from dfkd_core.output.evaluate import open_session
from dfkd_core.report import Parity
from dfkd_core.spec.config import PRUNED_TEACHER
from dfkd_core.students.build import Network, build_network

if TYPE_CHECKING:
    import onnx

PARITY_BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4  # of the batch's largest logit, or of 1 if that is less
# The oldest IR version that may carry each operator set: the widest choice of runtimes.
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10}
METADATA_KEY = "dfkd_student"  # one key only: safetensors writes several in random order
EXPORTER_REMARKS = "torch.onnx._internal.exporter._registration"


def export_onnx(
    student: nn.Module,
    path: Path,
    *,
    input_shape: Sequence[int],
    opset: int = 18,
    input_name: str = "images",
    output_name: str = "logits",
) -> None:
    """Write the student in eval mode as one ONNX file with dynamic batch; images (batch, C, H, W) to logits.

    The student itself is left as it is. Batch normalisations are folded into convolutions. The bytes depend on the
    weights, the arguments and the library versions only. `onnx.checker` has passed the file.
    """
    import onnx

    model = _traced(student, input_shape, opset=opset, names=(input_name, output_name))
    strip_documentation(model)
    del model.graph.value_info[:]  # any reader infers these shapes again
    model.ir_version = IR_VERSIONS[opset]
    model.producer_name, model.producer_version = "dfkd", dfkd_core.__version__
    model.graph.name = "student"
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


@torch.no_grad()
def check_parity(student: nn.Module, path: Path, *, images_by_batch: Sequence[Tensor]) -> Parity:
    """Compare ONNX Runtime on the file with PyTorch on the student for each batch of images (N, C, H, W).

    ExportMismatch where logits differ by more than the tolerance, or where the largest logit is another one although it
    leads by more than the tolerance. Ties within the tolerance are counted, not refused.
    """
    if not images_by_batch:
        raise ValueError("parity needs images")
    reference = copy.deepcopy(student).eval().cpu()
    run = _runtime(path)
    found = [_compared(reference(images.cpu()), run(images.cpu())) for images in images_by_batch]
    return Parity(
        max_abs_diff=max(difference for difference, _, _ in found),
        max_scaled_diff=max(scaled for _, scaled, _ in found),
        tolerance=TOLERANCE,
        top1_mismatches=sum(mismatches for _, _, mismatches in found),
        batches=[len(images) for images in images_by_batch],
    )


def save_weights(student: nn.Module, path: Path, description: NetworkDescription) -> None:
    """Write the student's parameters and running statistics as safetensors, with what is needed to build it again."""
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
    """Write the parameters and running statistics of a narrowed teacher. Its graph is in the ONNX file only."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    text = json.dumps({"architecture": PRUNED_TEACHER, "width": width}, sort_keys=True, separators=(",", ":"))
    path.write_bytes(save(state, metadata={METADATA_KEY: text}))


def load_student_weights(path: Path) -> tuple[Network, NetworkDescription]:
    """Build the student that `save_weights` wrote, in eval mode, on the CPU; StudentError for other files."""
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


def _traced(student: nn.Module, input_shape: Sequence[int], *, opset: int, names: tuple[str, str]) -> "onnx.ModelProto":
    twin = copy.deepcopy(student).eval().cpu().requires_grad_(False)
    with _without_remarks():
        program = torch.onnx.export(
            twin,
            (torch.zeros(2, *input_shape),),  # a batch of 1 could be taken for a constant
            dynamo=True,
            opset_version=opset,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep two remarks of the exporter about itself, on which nobody can act, out of logs and warnings."""
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


def _runtime(path: Path) -> Callable[[Tensor], Tensor]:
    """The file as a function from images (N, C, H, W) to logits (N, num_classes)."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _compared(expected: Tensor, found: Tensor) -> tuple[float, float, int]:
    """Largest absolute and scaled difference, and the number of images with another top-1; (N, num_classes) each."""
    if expected.shape != found.shape:
        raise ExportMismatch(f"the exported student returns {tuple(found.shape)}, not {tuple(expected.shape)}")
    difference = (expected - found).abs().max().item()
    scale = max(1.0, expected.abs().max().item())
    if not difference / scale <= TOLERANCE:  # NaN fails too
        raise ExportMismatch(
            f"ONNX Runtime and PyTorch differ by {difference:.3g} on logits of up to {scale:.3g}",
            hint="Export at another opset (export.opset), and report the student's architecture and width.",
        )
    differs = expected.argmax(1) != found.argmax(1)
    leads = _lead(expected) > TOLERANCE * scale
    if bool((differs & leads).any()):
        raise ExportMismatch(f"ONNX Runtime and PyTorch decide differently on {int((differs & leads).sum())} images")
    return difference, difference / scale, int(differs.sum())


def _lead(logits: Tensor) -> Tensor:
    """Largest logit minus the next: (N,)."""
    best = logits.topk(min(2, logits.shape[1]), dim=1).values
    return best[:, 0] - best[:, -1]


def _identity(description: NetworkDescription) -> dict[str, Any]:
    """The arguments of `describe` that give this description."""
    return {
        "architecture": description.name,
        "input_shape": list(description.input_shape),
        "num_classes": description.num_classes,
        "width": description.width,
        "options": dict(description.options),
    }


def _check_belongs(tensors: Mapping[str, Tensor], description: NetworkDescription) -> None:
    """StudentError where the tensors are not those of the description; counters are nobody's business."""
    wanted = description.tensors()
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name in wanted}
    if found != wanted:
        raise StudentError(f"these weights are not those of {description.name} at width {description.width:g}")
