"""The signature of an ONNX graph: its only input, a batch of images in some layout and element type.

The layout is read from the graph, or told by the caller. It is never guessed from sizes.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from onnx import ModelProto, TensorProto, TensorShapeProto

from dfkd_core.errors import TeacherInvalid, TeacherMismatch
from dfkd_core.interface import InputType, Layout, dims_of
from dfkd_core.onnx_import.ends.layout_evidence import layout_of
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import Scaled, Shape, Step

ELEMENTS: dict[int, InputType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
}
CHANNELS = (1, 2, 3, 4)  # sizes of an axis that look like channels
OPEN_SIZES = ("any channels", "any height", "any width")
MAX_SIDE = 4096
RANKS: dict[int, Literal[2, 3, 4]] = {2: 2, 3: 3, 4: 4}
TO_NHWC = (0, 2, 3, 1)

Dims = list[int | None]
"""The declared sizes of one image; None: the file leaves the size open."""


@dataclass(slots=True)
class Signature:
    """The input that the file declares, completed by what the caller told."""

    name: str
    element: InputType
    layout: Layout
    rank: Literal[2, 3, 4]  # number of dimensions of the input, with the batch: 4, 3 or 2
    shape: Shape  # (C, H, W), whatever the layout
    dims: Shape  # the sizes of one image as the graph sees them
    batch: int | None  # the declared batch size; None if it is dynamic

    @property
    def images(self) -> str:
        """The name, in the plan, of the images (N, C, H, W)."""
        return self.name if not self.prelude else f"{self.name}/images/"

    @property
    def prelude(self) -> list[str]:
        """The operations from images (N, C, H, W) to the input of the graph."""
        turned = ["Transpose"] if self.layout == "NHWC" and self.rank != 3 else []
        return turned + {4: [], 3: ["Squeeze"], 2: ["Reshape"]}[self.rank]


def _type_name(element: int) -> str:
    """Return the name of an element type; a file may also declare none, or a number that has no name."""
    if not element:
        return "no tensor"
    names: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
    return names.get(element, f"of the unknown type {element}")


def read_signature(model: ModelProto, *, shape: Shape | None = None, layout: Layout | None = None) -> Signature:
    """Read the declared input. `shape` (C, H, W) replaces sizes that the file leaves open; `layout` is what was told.

    Raises:
        TeacherInvalid: the input is not a batch of images.
        TeacherMismatch: a size or the layout is unknown, or the file contradicts what was told.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    value = next(value for value in model.graph.input if value.name not in stored)
    tensor = value.type.tensor_type
    element = ELEMENTS.get(int(tensor.elem_type))
    if element is None:
        kind = _type_name(tensor.elem_type)
        raise TeacherInvalid(
            f"the input of the ONNX graph ({readable(value.name)}) is {kind.lower()}, not a batch of images",
            hint="Images are float32, float16, float64 or uint8: export the network with such an input.",
        )
    if tensor.HasField("shape"):
        sizes: Dims = [_size(dim) for dim in tensor.shape.dim]
    else:
        sizes = [None] * 4
    rank = RANKS.get(len(sizes))
    if rank is None:
        raise TeacherInvalid(
            f"the input of the ONNX graph has {len(sizes)} dimensions",
            hint="Images are (N, C, H, W), (N, H, W, C), (N, H, W), or rows of numbers (N, C · H · W).",
        )
    found = layout_of(model.graph, value.name) if len(sizes) == 4 else None
    chosen = _layout(sizes[1:], found, layout)
    image = _image_shape(sizes[1:], shape, chosen)
    return Signature(
        name=value.name,
        element=element,
        layout=chosen,
        rank=rank,
        shape=image,
        dims=dims_of(image, layout=chosen, rank=rank),
        batch=sizes[0] or None,
    )


def prelude_steps(signature: Signature) -> list[tuple[Step, Shape]]:
    """Return the steps from images (N, C, H, W) to the graph's input, with the shapes that they give for one image."""
    steps: list[tuple[Step, Shape]] = []
    name, (channels, height, width) = signature.images, signature.shape
    for op in signature.prelude:
        last = op == signature.prelude[-1]
        output = signature.name if last else f"{signature.name}/{op}/"
        dims = signature.dims if last else (height, width, channels)
        known: dict[str, dict[str, Any]] = {
            "Transpose": {"perm": TO_NHWC},
            "Squeeze": {"axes": (1,)},
            "Reshape": {"shape": (Scaled(1), *signature.dims)},
        }
        attributes = known[op]
        steps.append((Step(op, f"(images to {readable(signature.name)})", (name,), (output,), attributes), dims))
        name = output
    return steps


def _size(dim: TensorShapeProto.Dimension) -> int | None:
    """Return a declared size; None if it is open, for which some exporters write -1."""
    return int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else None


def _layout(dims: Dims, found: Layout | None, told: Layout | None) -> Layout:
    """Return the layout that the graph shows or the caller tells, else NCHW.

    Raises:
        TeacherMismatch: they contradict each other, or neither tells and only the last axis could be channels.
    """
    if found is not None and told is not None and found != told:
        last = "last" if found == "NHWC" else "first"
        raise TeacherMismatch(
            f"the ONNX graph takes its images with channels {last} ({found}), the spec says {told}",
            hint="Leave teacher.input.layout out: the graph tells it.",
            pointer="/teacher/input/layout",
        )
    if found or told or len(dims) != 3:
        return found or told or "NCHW"
    if dims[2] in CHANNELS and dims[0] not in CHANNELS:
        raise TeacherMismatch(
            f"the ONNX graph does not tell which axis of its images {_shown(dims)} holds the channels",
            hint='Set teacher.input.layout to "NHWC" if the channels come last, to "NCHW" if they come first.',
            pointer="/teacher/input/layout",
        )
    return "NCHW"


def _image_shape(dims: Dims, wanted: Shape | None, layout: Layout) -> Shape:
    """Return the shape (C, H, W) of the images, from the sizes that the graph declares and those that were told."""
    if len(dims) < 3:
        shape = _told_shape(dims, wanted)
    else:
        shape = _declared_shape(dims if layout == "NCHW" else [dims[2], *dims[:2]], wanted)
    if not all(1 <= size <= MAX_SIDE for size in shape):
        raise TeacherInvalid(f"images of shape {list(shape)} cannot be taken")
    return shape


def _declared_shape(dims: Dims, wanted: Shape | None) -> Shape:
    if wanted is None and None in dims:
        raise TeacherMismatch(
            "the ONNX graph leaves the size of its images open",
            hint="Give teacher.input.shape: [channels, height, width], whatever the file's layout.",
            pointer="/teacher/input",
        )
    if wanted is not None and not _fits(dims, list(wanted)):
        declared = ", ".join(str(size or open_size) for size, open_size in zip(dims, OPEN_SIZES, strict=True))
        raise TeacherMismatch(
            f"the file takes images of [{declared}], the spec says {list(wanted)}",
            hint=order_hint(dims, wanted),
            pointer="/teacher/input/shape",
        )
    return tuple(size if size is not None else (wanted or ())[at] for at, size in enumerate(dims))


def order_hint(dims: Dims, wanted: Shape) -> str:
    """Return what a shape that does not fit sizes [channels, height, width] should have been, if that can be told."""
    turned = [wanted[2], *wanted[:2]]
    example = f", here {turned}" if wanted[2] in CHANNELS and _fits(dims, turned) else ""
    return f"teacher.input.shape is [channels, height, width], whatever the file's layout{example}."


def _told_shape(dims: Dims, wanted: Shape | None) -> Shape:
    """Return the shape of images that the graph takes as (N, H, W) or as rows, which only the caller can tell."""
    rows = len(dims) == 1
    if wanted is None:
        example = _example(dims)
        raise TeacherMismatch(
            f"the ONNX graph takes (N, {_inner(dims)}), which does not tell channels, height and width",
            hint=f"Set teacher.input.shape to [channels, height, width]{example}.",
            pointer="/teacher/input/shape",
        )
    channels, height, width = wanted
    fits = dims[0] in (None, math.prod(wanted)) if rows else channels == 1 and _fits(dims, [height, width])
    if not fits:
        raise TeacherMismatch(
            f"images of {list(wanted)} do not fit the input (N, {_inner(dims)}) of the ONNX graph",
            hint=f"Set teacher.input.shape to [channels, height, width]{_example(dims)}.",
            pointer="/teacher/input/shape",
        )
    return tuple(wanted)


def _fits(dims: Dims, sizes: list[int]) -> bool:
    return all(dim in (None, size) for dim, size in zip(dims, sizes, strict=True))


def _example(dims: Dims) -> str:
    """Return an example of a shape that fits, for a hint; empty if there is no obvious one."""
    if len(dims) == 2:
        return f": [1, {dims[0]}, {dims[1]}]" if None not in dims else ", with 1 channel"
    for channels in (1, 3):
        side = math.isqrt((dims[0] or 0) // channels)
        if side and channels * side * side == dims[0]:
            return f", such as [{channels}, {side}, {side}]"
    return ""


def _inner(dims: Dims) -> str:
    return ", ".join("?" if size is None else str(size) for size in dims)


def _shown(dims: Dims) -> str:
    return f"(N, {_inner(dims)})"
