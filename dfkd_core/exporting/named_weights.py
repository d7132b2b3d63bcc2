"""Weights of an architecture of the catalogue, written as safetensors."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dfkd_core.architectures import ARCHITECTURES
from dfkd_core.errors import DfkdError, ParityError, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.formats.safetensors_header import TensorInfo, read_header, read_tensors
from dfkd_core.inspection.named_teacher import describe_teacher
from dfkd_core.spec.teacher import TeacherSpec

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32"}
GIVE_THE_NETWORK = (
    "Give the network that these weights belong to: dfkd submit module:Net --weights FILE --shape C,H,W, "
    "or dfkd.compress(model, …) in Python."
)


def write_weights(weights: Mapping[str, Tensor], path: Path, spec: TeacherSpec) -> None:
    """Check names and shapes against the architecture, write the file, and compare it with `weights`.

    Raises:
        TeacherMismatch: names or shapes are not those of the architecture.
        ParityError: the file does not hold what was written.
    """
    from safetensors.torch import save

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


def only_fitting(weights: Mapping[str, Tensor], spec: TeacherSpec) -> str:
    """Return the one architecture that has exactly these weights.

    Raises:
        TeacherMismatch: none has, several have, or the shape of the images is not known, on which it depends.
    """
    if spec.told_shape is None:
        raise TeacherMismatch(
            "weights alone do not tell their network, nor the shape of its images",
            hint=f"{GIVE_THE_NETWORK} Or name one of `dfkd students`: --architecture NAME --shape C,H,W.",
        )
    fitting = _fitting(weights, spec)
    if not fitting:
        raise TeacherMismatch("no architecture of the catalogue has exactly these weights", hint=GIVE_THE_NETWORK)
    if len(fitting) > 1:
        raise TeacherMismatch(
            f"several architectures have exactly these weights: {', '.join(fitting)}", hint="Name one: --architecture."
        )
    return fitting[0]


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
