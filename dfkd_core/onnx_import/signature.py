"""The signature of an ONNX graph: its only input, which must be a batch of floating-point images (N, C, H, W)."""

from dataclasses import dataclass
from typing import Any

from onnx import TensorProto, ValueInfoProto

from dfkd_core.errors import TeacherInvalid, TeacherMismatch
from dfkd_core.onnx_import.ir.plan import Shape

_ELEMENTS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
}


@dataclass(slots=True)
class Signature:
    """The input that the file declares."""

    name: str
    element: Any  # one of the literals of Plan.element
    shape: Shape  # (C, H, W)
    batch: int | None  # the declared batch size; None if it is dynamic


def read_signature(value: ValueInfoProto, wanted: Shape | None) -> Signature:
    """Read the declared input; `wanted` (C, H, W) replaces the sizes that the file leaves open.

    Raises:
        TeacherInvalid: the input is not a batch of floating-point images (N, C, H, W).
        TeacherMismatch: a size is unknown, or the file contradicts `wanted`.
    """
    tensor = value.type.tensor_type
    element = _ELEMENTS.get(int(tensor.elem_type))
    if element is None:
        raise TeacherInvalid(
            "the input of the ONNX graph is not a batch of floating-point images",
            hint="Export the network without its pre-processing, with float32 images (N, C, H, W) as input.",
        )
    dims = [int(dim.dim_value) if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if len(dims) != 4:
        raise TeacherInvalid(f"the input of the ONNX graph has {len(dims)} dimensions, not 4: (N, C, H, W)")
    if dims[3] in (1, 3) and (dims[1] or 0) > 4:
        raise TeacherInvalid(
            f"the input of the ONNX graph is (N, H, W, C): {dims[1:]}",
            hint="Export with channels first (tf2onnx: --inputs-as-nchw).",
        )
    shape = _image_shape(dims[1:], wanted)
    return Signature(value.name, element, shape, dims[0] if dims[0] and dims[0] > 0 else None)


def _image_shape(dims: list[int | None], wanted: Shape | None) -> Shape:
    if wanted is None and None in dims:
        raise TeacherMismatch(
            "the ONNX graph leaves the size of its images open",
            hint="Give teacher.input.shape.",
            pointer="/teacher/input",
        )
    shape = tuple(size if size is not None else (wanted or ())[at] for at, size in enumerate(dims))
    if wanted is not None and shape != tuple(wanted):
        raise TeacherMismatch(
            f"the file takes images of {list(shape)}, the spec says {list(wanted)}", pointer="/teacher/input/shape"
        )
    if not all(1 <= size <= 4096 for size in shape):
        raise TeacherInvalid(f"images of shape {list(shape)} cannot be taken")
    return shape
