"""Rules of the operators that sample images at other places: resizing, and the grids of a spatial transformer."""

import math
from collections.abc import Callable

import numpy as np

from dfkd_core.onnx_import.ir.node import Call, Rule, Unsupported, check_size
from dfkd_core.onnx_import.ir.plan import Shape

F = np.float32  # the precision of ONNX Runtime; float64 would round halves differently
Coordinate = Callable[[np.float32, np.float32, int, int], np.float32]
"""Maps (index in the result, scale, old size, new size) to the coordinate in the source."""

_COORDINATES: dict[str, Coordinate] = {
    "asymmetric": lambda at, scale, _old, _new: at / scale,
    "half_pixel": lambda at, scale, _old, _new: (at + F(0.5)) / scale - F(0.5),
    "pytorch_half_pixel": lambda at, scale, _old, new: (at + F(0.5)) / scale - F(0.5) if new > 1 else F(0),
    "align_corners": lambda at, _scale, old, new: at * F(old - 1) / F(new - 1) if new > 1 else F(0),
    "tf_half_pixel_for_nn": lambda at, scale, _old, _new: (at + F(0.5)) / scale,
}
_ROUNDINGS: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}
_CORNERS = {"align_corners": True, "half_pixel": False, "pytorch_half_pixel": False}
_TORCH_CUBIC = -0.75  # the coefficient of PyTorch's cubic interpolation


def _resize(call: Call) -> list[Shape]:
    """Upsample and Resize, by scales or sizes.

    Mode nearest becomes an operation of our own, Pixels, with the source index of each pixel. Modes linear and cubic
    become PyTorch's `interpolate`.
    """
    shape, attributes = call.shape(), call.attributes
    sizes, scales = _sizes(call)
    if call.rank != 4 or sizes[:2] != shape[:2] or attributes.get("axes") or attributes.get("antialias"):
        raise Unsupported("it resizes more than height and width, or smooths")
    mode = attributes.get("mode", "nearest")
    where = attributes.get("coordinate_transformation_mode", "asymmetric" if call.opset < 11 else "half_pixel")
    if mode == "nearest":
        rounding = attributes.get("nearest_mode", "floor" if call.opset < 11 else "round_prefer_floor")
        call.op, call.attributes = "Pixels", {"places": _places(shape, sizes, scales, where=where, rounding=rounding)}
    elif mode in ("linear", "cubic") and where in _CORNERS:
        if mode == "cubic" and (
            attributes.get("cubic_coeff_a", _TORCH_CUBIC) != _TORCH_CUBIC or attributes.get("exclude_outside")
        ):
            raise Unsupported("a cubic of another coefficient")
        how = {"linear": "bilinear", "cubic": "bicubic"}[mode]
        call.attributes = {"mode": how, "sizes": sizes[2:], "align_corners": _CORNERS[where]}
    else:
        raise Unsupported(f"resizing of mode {mode} with {where} coordinates")
    call.keep_inputs(1)
    return [sizes]


def _sizes(call: Call) -> tuple[Shape, tuple[float, ...]]:
    """Return the new size of every axis, and the ratio of the new size to the old one."""
    shape = call.shape()
    if call.has_input(3):
        sizes = tuple(int(size) for size in call.const_value(3))
        if len(sizes) != call.rank:
            raise Unsupported("its sizes do not fit the shape")
        check_size(sizes)
        return sizes, tuple(new / old for new, old in zip(sizes, shape, strict=True))
    at = 1 if call.opset < 11 else 2
    scales = tuple(map(float, call.const_value(at) if call.has_input(at) else call.attributes.get("scales", ())))
    if len(scales) != call.rank or not all(0 < scale < 2**20 for scale in scales):
        raise Unsupported("its scales do not fit the shape")
    sizes = tuple(math.floor(size * scale) for size, scale in zip(shape, scales, strict=True))
    check_size(sizes)
    return sizes, scales


def _places(
    shape: Shape, sizes: Shape, scales: tuple[float, ...], *, where: str, rounding: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each row and each column of the result, the row or column of the source that it is copied from."""
    place, whole = _COORDINATES.get(where), _ROUNDINGS.get(rounding)
    if place is None or whole is None:
        raise Unsupported(f"resizing with {where} coordinates")

    def along(axis: int) -> tuple[int, ...]:
        old, new, scale = shape[axis], sizes[axis], F(scales[axis])
        return tuple(min(max(whole(float(place(F(at), scale, old, new))), 0), old - 1) for at in range(new))

    return along(2), along(3)


def _grid_sample(call: Call) -> list[Shape]:
    mode = call.attributes.get("mode", "linear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    padding = call.attributes.get("padding_mode", "zeros")
    images, grid = call.shape(0), call.shape(1)
    if mode not in ("bilinear", "bicubic", "nearest") or padding not in ("zeros", "border", "reflection"):
        raise Unsupported(f"sampling of mode {mode} with padding {padding}")
    if len(images) != 4 or len(grid) != 4 or grid[3] != 2 or grid[0] != images[0]:
        raise Unsupported("its grid does not fit the images")
    corners = bool(call.attributes.get("align_corners", 0))
    call.attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    shape = (*images[:2], *grid[1:3])
    check_size(shape)
    return [shape]


def _affine_grid(call: Call) -> list[Shape]:
    size = call.ints(1, "size_")
    if size is None or len(size) != 4 or call.shape() != (size[0], 2, 3):
        raise Unsupported("a grid of more than height and width")
    shape = (size[0], size[2], size[3], 2)
    check_size(shape)
    call.attributes = {"size": size, "align_corners": bool(call.attributes.get("align_corners", 0))}
    call.keep_inputs(1)
    return [shape]


RULES: dict[str, Rule] = {
    "Resize": _resize,
    "Upsample": _resize,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
}
