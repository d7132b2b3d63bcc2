"""PyTorch functions for the operators without weights; gradients pass through all of them."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.networks.pooling import max_pool2d
from dfkd_core.teachers.attention import attention, einsum, rms_norm, safe_softmax
from dfkd_core.teachers.reductions import REDUCTIONS
from dfkd_core.teachers.resize import (
    affine_grid,
    depth_to_space,
    grid_sample,
    interpolate,
    pixels,
    space_to_depth,
)

Pads = Sequence[Sequence[int]]


def hard_sigmoid(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Compute max(0, min(1, alpha x + beta)), with F.hardsigmoid if alpha is 1/6 and beta is 0.5."""
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def selu(x: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Compute gamma x above zero, and gamma alpha (e^x - 1) below zero."""
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0.0)))


def leaky_relu(x: Tensor, *, alpha: float) -> Tensor:
    """Compute x above zero, and alpha x below zero."""
    return F.leaky_relu(x, alpha)


def thresholded_relu(x: Tensor, *, alpha: float) -> Tensor:
    """Return x above alpha, and 0 elsewhere."""
    return F.threshold(x, alpha, 0.0)


def swish(x: Tensor, *, alpha: float) -> Tensor:
    """Compute x sigmoid(alpha x)."""
    return x * torch.sigmoid(alpha * x)


def shrink(x: Tensor, *, lambd: float, bias: float) -> Tensor:
    """Move x towards 0 by bias, and return 0 where |x| is at most lambd."""
    return torch.where(x > lambd, x - bias, torch.where(x < -lambd, x + bias, torch.zeros_like(x)))


def clip(x: Tensor, *, min: float, max: float) -> Tensor:
    """Clamp x between two bounds, each of which may be infinite."""
    return torch.clamp(x, None if math.isinf(min) else min, None if math.isinf(max) else max)


def is_inf(x: Tensor, *, detect_negative: int, detect_positive: int) -> Tensor:
    """Return where x is infinite, of one sign or of both."""
    return (torch.isneginf(x) & bool(detect_negative)) | (torch.isposinf(x) & bool(detect_positive))


def to_float(x: Tensor) -> Tensor:
    """Convert truth values to numbers; real numbers keep the network's type, whatever type the file names."""
    return x if x.is_floating_point() else x.float()


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Compute x above zero, and slope x below zero; the slope broadcasts."""
    return torch.where(x >= 0, x, slope * x)


def maximum(*values: Tensor) -> Tensor:
    """Return the largest of several tensors, element by element."""
    return reduce(torch.maximum, values)


def minimum(*values: Tensor) -> Tensor:
    """Return the smallest of several tensors, element by element."""
    return reduce(torch.minimum, values)


def add_up(*values: Tensor) -> Tensor:
    """Return the sum of several tensors."""
    return reduce(torch.add, values)


def average(*values: Tensor) -> Tensor:
    """Return the mean of several tensors."""
    return reduce(torch.add, values) / len(values)


def gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, flip_a: bool, flip_b: bool, alpha: float, beta: float
) -> Tensor:
    """Compute alpha A B + beta C; each factor may be transposed."""
    product = alpha * ((a.T if flip_a else a) @ (b.T if flip_b else b))
    return product if c is None else product + beta * c


def reshape(x: Tensor, *, shape: Sequence[int]) -> Tensor:
    """Return the same values in another shape."""
    return x.reshape(tuple(shape))


def squeeze(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    """Remove the given axes of size one."""
    return x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    """Insert new axes of size one; `axes` are positions in the result."""
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, *, perm: Sequence[int]) -> Tensor:
    """Return the tensor with its axes in another order."""
    return x.permute(tuple(perm))


def concat(*values: Tensor, axis: int) -> Tensor:
    """Concatenate several tensors."""
    return torch.cat(values, axis)


def split(x: Tensor, *, axis: int, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Split the tensor into pieces of the given sizes."""
    return torch.split(x, list(sizes), axis)


def cut(x: Tensor, *, axis: int, start: int, stop: int, step: int) -> Tensor:
    """Return every step-th entry from start up to, but without, stop."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def pick(x: Tensor, *, axis: int, index: int) -> Tensor:
    """Select one entry and remove its axis."""
    return x.select(axis, index)


def gather(x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    """Select entries by index; the shape of the indices replaces the axis."""
    found = x.index_select(axis, indices.reshape(-1))
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def gather_nd(x: Tensor, indices: Tensor, *, axes: int) -> Tensor:
    """Select entries by their places along the first `axes` axes, which `indices` count as one flat axis."""
    found = x.flatten(0, axes - 1).index_select(0, indices.reshape(-1))
    return found.reshape(*indices.shape, *x.shape[axes:])


def expand(x: Tensor, *, shape: Sequence[int]) -> Tensor:
    """Repeat the tensor along axes of size one, without a copy."""
    return x.expand(tuple(shape))


def tile(x: Tensor, *, repeats: Sequence[int]) -> Tensor:
    """Repeat the whole tensor along each axis."""
    return x.repeat(tuple(repeats))


def pad(x: Tensor, *, mode: str, pads: Pads, value: float) -> Tensor:
    """Add a border on any axis (constant) or on height and width (reflect, edge)."""
    flat = [size for pair in reversed(pads) for size in pair]
    if mode == "constant":
        return F.pad(x, flat, value=value)
    return F.pad(x, flat[:4], mode={"reflect": "reflect", "edge": "replicate"}[mode])


def pad_before_max_pool(x: Tensor, *, mode: str, pads: Pads, value: float) -> Tensor:
    """Add a constant border in one more dimension: ONNX Runtime would fuse a plain Pad into the MaxPool of a student.

    The border of a MaxPool is minus infinity, so the fused one computes something else where values are negative.
    """
    return pad(x.unsqueeze(0), mode=mode, pads=((0, 0), *pads), value=value).squeeze(0)


def _symmetric(pads: Pads, kernel: Sequence[int]) -> bool:
    return all(before == after <= size // 2 for (before, after), size in zip(pads, kernel, strict=True))


def max_pool(
    x: Tensor, *, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Pads, ceil_mode: bool
) -> Tensor:
    """Return the largest value of each window; an asymmetric border is added first."""
    if not _symmetric(pads, kernel):
        x = F.pad(x, [size for pair in reversed(pads) for size in pair], value=-math.inf)
        pads = [(0, 0)] * len(kernel)
    border = tuple(before for before, _ in pads)
    if len(kernel) == 2:
        return max_pool2d(x, kernel, strides, border, dilations, ceil_mode=ceil_mode)
    pooled: Tensor = F.max_pool1d(x, tuple(kernel), tuple(strides), border, tuple(dilations), ceil_mode)
    return pooled


def average_pool(
    x: Tensor,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Pads,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    """Return the mean of each window, with or without its border; `dilations` are all one."""
    pool: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    window = (tuple(kernel), tuple(strides))
    if _symmetric(pads, kernel):
        return pool(x, *window, tuple(before for before, _ in pads), ceil_mode, count_include_pad)
    border = [size for pair in reversed(pads) for size in pair]
    summed = pool(F.pad(x, border), *window, 0, ceil_mode)
    if count_include_pad:
        return summed
    return summed / pool(F.pad(torch.ones_like(x), border), *window, 0, ceil_mode)


def col2im(
    x: Tensor,
    *,
    sizes: Sequence[int],
    kernel: Sequence[int],
    dilations: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
) -> Tensor:
    """Add up the patches (N, C · kernel, places) into images (N, C, *sizes); what lies in the border is cut off."""
    padded = tuple(before + size + after for size, (before, after) in zip(sizes, pads, strict=True))
    whole = F.fold(x, padded, tuple(kernel), tuple(dilations), 0, tuple(strides))
    (top, _), (left, _) = pads
    return whole[:, :, top : top + sizes[0], left : left + sizes[1]]


def cumulative_sum(x: Tensor, *, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Return the sums of all entries up to each entry along an axis, or of all from it on."""
    summed = (x.flip(axis) if reverse else x).cumsum(axis)
    summed = summed.flip(axis) if reverse else summed
    return summed - x if exclusive else summed


def trilu(x: Tensor, *, upper: int, k: int) -> Tensor:
    """Return the upper or lower triangle of the last two axes."""
    return x.triu(k) if upper else x.tril(k)


def lp_normalization(x: Tensor, *, axis: int, p: int) -> Tensor:
    """Divide the tensor by its norm along an axis."""
    norm: Tensor = torch.linalg.vector_norm(x, ord=p, dim=axis, keepdim=True)
    return x / norm


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float) -> Tensor:
    """Normalise each channel of each image to mean 0 and variance 1, then apply scale and bias.

    The function of `torch.nn.functional` refuses channels of one number, which narrow copies have.
    """
    return torch.instance_norm(x, scale, bias, None, None, True, 0.0, epsilon, torch.backends.cudnn.enabled)


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int, epsilon: float) -> Tensor:
    """Normalise over the axes from `axis` on to mean 0 and variance 1; scale and bias broadcast."""
    normal = F.layer_norm(x, x.shape[axis:], eps=epsilon) * scale
    return normal if bias is None else normal + bias


def local_response_norm(x: Tensor, *, alpha: float, beta: float, bias: float, size: int) -> Tensor:
    """Divide each value by the energy of the neighbouring channels."""
    return F.local_response_norm(x, size, alpha, beta, bias)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **REDUCTIONS,
    "Relu": torch.relu,
    "LeakyRelu": leaky_relu,
    "ThresholdedRelu": thresholded_relu,
    "Elu": F.elu,
    "Celu": F.celu,
    "Selu": selu,
    "Sigmoid": torch.sigmoid,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": F.hardswish,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Mish": F.mish,
    "Gelu": F.gelu,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Sign": torch.sign,
    "Swish": swish,
    "Shrink": shrink,
    "Not": torch.logical_not,
    "IsNaN": torch.isnan,
    "IsInf": is_inf,
    "Clip": clip,
    "Cast": to_float,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Pow": torch.pow,
    "PRelu": prelu,
    "Equal": torch.eq,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Where": torch.where,
    "SafeSoftmax": safe_softmax,
    "Max": maximum,
    "Min": minimum,
    "Sum": add_up,
    "Mean": average,
    "MatMul": torch.matmul,
    "Gemm": gemm,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Col2Im": col2im,
    "CumSum": cumulative_sum,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "LRN": local_response_norm,
    "LpNormalization": lp_normalization,
    "Resize": interpolate,
    "Upsample": interpolate,
    "Pixels": pixels,
    "GridSample": grid_sample,
    "AffineGrid": affine_grid,
    "Einsum": einsum,
    "Attention": attention,
    "RMSNormalization": rms_norm,
    "Trilu": trilu,
}
