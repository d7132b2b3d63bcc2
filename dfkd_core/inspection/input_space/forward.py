"""Computes a plan, or its first layers, on a few images with NumPy: for the statistics of what its layers see."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dfkd_core.onnx_import.ir.plan import Array, Plan, Scaled, Step
from dfkd_core.onnx_import.ops.constant_folding import FOLDS, Fold

COLUMNS = 2**23  # elements of the patches that a convolution gathers at a time: 32 MiB

Values = dict[str, Array]


class NotComputable(Exception):
    """A step has no implementation here."""


def steps_towards(plan: Plan, wanted: Iterable[str]) -> list[Step]:
    """Return the steps of which the wanted values are computed, in order."""
    needed = set(wanted)
    found = []
    for step in reversed(plan.steps):
        if needed.intersection(step.outputs):
            needed.update(name for name in step.inputs if name is not None)
            found.append(step)
    return found[::-1]


def is_computable(step: Step) -> bool:
    """Return whether `compute` can do the step."""
    return step.op in OPERATIONS


def compute(plan: Plan, steps: Sequence[Step], images: Array, wanted: Iterable[str]) -> Values:
    """Return the wanted values for images (N, C, H, W); `steps` lead to them. All others are dropped after their use.

    Raises:
        NotComputable: a step has no implementation, or its operands do not fit.
    """
    kept = set(wanted)
    last = {name: number for number, step in enumerate(steps) for name in step.inputs if name is not None}
    values: Values = {plan.input_name: images}
    with np.errstate(all="ignore"):
        for number, step in enumerate(steps):
            operands = [_operand(plan, values, name) for name in step.inputs]
            made = _result(step, operands, len(images))
            values.update(zip(step.outputs, made, strict=False))
            for name in {*step.inputs} - kept:
                if name in values and last[str(name)] == number:
                    del values[str(name)]
    return {name: values[name] for name in kept if name in values}


def _operand(plan: Plan, values: Values, name: str | None) -> Any:
    if name is None:
        return None
    return values[name] if name in values else plan.constants[name]


def _result(step: Step, operands: list[Any], count: int) -> tuple[Array, ...]:
    operation = OPERATIONS.get(step.op)
    if operation is None:
        raise NotComputable(step.op)
    attributes = {name: _sized(value, count) for name, value in step.attributes.items()}
    try:
        made = operation(operands, attributes)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise NotComputable(step.op) from error
    return made if isinstance(made, tuple) else (made,)


def _sized(value: Any, count: int) -> Any:
    """Return an attribute with the sizes that grow with the batch filled in."""
    if isinstance(value, tuple):
        return tuple(_sized(entry, count) for entry in value)
    return value.factor * count if isinstance(value, Scaled) else value


def _conv(values: list[Any], attributes: Mapping[str, Any]) -> Array:
    """Return the convolution of images (N, C, H, W)."""
    images, weight, *rest = values
    if images.ndim != 4:
        raise NotComputable("a convolution along one axis")
    out, group = len(weight), attributes["group"]
    windows = _windows(np.pad(images, ((0, 0), (0, 0), *attributes["pads"])), attributes)  # (N, C, H', W', h, w)
    if weight.shape[1] == 1 and group == images.shape[1]:
        result = _depthwise(windows, weight)
    else:
        per_image = math.prod(windows.shape[1:])
        at_a_time = max(1, COLUMNS // per_image)
        parts = [
            _grouped(windows[first : first + at_a_time], weight, group) for first in range(0, len(images), at_a_time)
        ]
        result = np.concatenate(parts)
    result = result.reshape(len(images), out, *windows.shape[2:4])
    return result if not rest or rest[0] is None else result + rest[0].reshape(1, -1, 1, 1)


def _windows(images: Array, attributes: Mapping[str, Any]) -> Array:
    """Return the windows (N, C, H', W', h, w) of images (N, C, H, W), without a copy."""
    (down, across), (rows, columns) = attributes["dilations"], attributes["kernel"]
    spans = ((rows - 1) * down + 1, (columns - 1) * across + 1)
    windows = sliding_window_view(images, spans, axis=(2, 3))
    vertical, horizontal = attributes["strides"]
    found: Array = windows[:, :, ::vertical, ::horizontal, ::down, ::across]
    return found


def _grouped(windows: Array, weight: Any, group: int) -> Array:
    """Return the products (N, out, H' W') of windows (N, C, H', W', h, w) and a kernel (out, C / group, h, w)."""
    count, _, height, width, *_ = windows.shape
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(count, group, -1, height * width)
    rows = weight.reshape(group, len(weight) // group, -1)
    return np.asarray(np.matmul(rows, columns)).reshape(count, len(weight), height * width)


def _depthwise(windows: Array, weight: Any) -> Array:
    """Return the products (N, out, H', W') of each channel with its own kernels."""
    count, channels, height, width, *_ = windows.shape
    kernels = weight.reshape(channels, -1, *weight.shape[2:])  # (C, multiplier, h, w)
    result = np.zeros((count, channels, kernels.shape[1], height, width), np.float32)
    for row in range(kernels.shape[2]):
        for column in range(kernels.shape[3]):
            taps: Any = windows[:, :, None, :, :, row, column]
            result += taps * kernels[None, :, :, row, column, None, None]
    return result


def _pooled(values: list[Any], attributes: Mapping[str, Any], *, border: float) -> Array:
    images = values[0]
    if images.ndim != 4:
        raise NotComputable("pooling along one axis")
    pads = list(attributes["pads"])
    if attributes["ceil_mode"]:
        pads = [
            (before, after + _missing(size + before + after, kernel, stride))
            for (before, after), size, kernel, stride in zip(
                pads, images.shape[2:], attributes["kernel"], attributes["strides"], strict=True
            )
        ]
    return _windows(np.pad(images, ((0, 0), (0, 0), *pads), constant_values=border), attributes)


def _missing(size: int, kernel: int, stride: int) -> int:
    """Return by how much the last window reaches beyond the images, where incomplete windows count."""
    return max(0, -(-(size - kernel) // stride) * stride + kernel - size)


def _max_pool(values: list[Any], attributes: Mapping[str, Any]) -> Array:
    return np.asarray(_pooled(values, attributes, border=-np.inf).max((-2, -1)))


def _average_pool(values: list[Any], attributes: Mapping[str, Any]) -> Array:
    attributes = {"dilations": (1, 1), **attributes}
    summed: Any = _pooled(values, attributes, border=0.0).sum((-2, -1))
    if attributes["count_include_pad"]:
        return np.asarray(summed / math.prod(attributes["kernel"]))
    inside: Any = _pooled([np.ones_like(values[0][:1, :1])], attributes, border=0.0).sum((-2, -1))
    return np.asarray(summed / inside)


def _batchnorm(values: list[Any], attributes: Mapping[str, Any]) -> Array:
    images, scale, bias, mean, variance = values
    factor = scale / np.sqrt(variance + attributes["epsilon"])
    wide = (1, -1, *(1,) * (images.ndim - 2))
    return np.asarray(images * factor.reshape(wide) + (bias - mean * factor).reshape(wide), np.float32)


def _standardised(values: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Return values with mean 0 and variance 1 over the axes."""
    centred = values - values.mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + epsilon), np.float32)


def _layer_norm(values: list[Any], attributes: Mapping[str, Any]) -> Array:
    inputs, scale, *rest = values
    axes = tuple(range(attributes["axis"], inputs.ndim))
    result = _standardised(inputs, axes, attributes["epsilon"]) * scale
    return np.asarray(result if not rest or rest[0] is None else result + rest[0])


def _group_norm(values: list[Any], attributes: Mapping[str, Any]) -> Array:
    """Return GroupNormalization, whose scale and bias are those of channels or of groups."""
    inputs, scale, bias = values
    count, channels, *sizes = inputs.shape
    grouped = inputs.reshape(count, attributes["groups"], -1)
    result = _standardised(grouped, (2,), attributes["epsilon"]).reshape(inputs.shape)
    each = (1, channels, *(1,) * len(sizes))
    scale, bias = (np.repeat(one, channels // len(one)).reshape(each) for one in (scale, bias))
    return np.asarray(result * scale + bias)


def _instance_norm(values: list[Any], attributes: Mapping[str, Any]) -> Array:
    return _group_norm(values, {**attributes, "groups": values[0].shape[1]})


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _gelu(x: Any) -> Any:
    """Return the approximation of GELU with tanh, which is within 0.001 of it."""
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def _softplus(x: Any) -> Any:
    return np.logaddexp(x, 0)


def _elu(x: Any, *, alpha: float) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _curve(how: Callable[..., Any]) -> Fold:
    """Return the operation that computes a function of each value, with the operator's attributes."""
    return lambda values, attributes: np.asarray(how(*values, **attributes), np.float32)


OPERATIONS: dict[str, Fold] = {
    **FOLDS,
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "BatchNormalization": _batchnorm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "Elu": _curve(_elu),
    "Selu": _curve(lambda x, alpha, gamma: gamma * _elu(x, alpha=alpha)),
    "LeakyRelu": _curve(lambda x, alpha: np.where(x > 0, x, alpha * x)),
    "PRelu": _curve(lambda x, slope: np.where(x > 0, x, slope * x)),
    "HardSigmoid": _curve(lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    "HardSwish": _curve(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Swish": _curve(lambda x, alpha: x * _sigmoid(alpha * x)),
    "Gelu": _curve(lambda x, approximate: _gelu(x)),
    "Softplus": _curve(_softplus),
    "Mish": _curve(lambda x: x * np.tanh(_softplus(x))),
}
"""The operators that can be computed: those of constants, and those that images alone need."""
