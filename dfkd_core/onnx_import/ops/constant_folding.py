"""NumPy implementations of operators, to compute the values that depend on no image: weights and shapes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dfkd_core.onnx_import.ir.node import Unsupported
from dfkd_core.onnx_import.ir.plan import Array

Attributes = Mapping[str, Any]
_ONNX_TYPES = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float32,
    11: np.float32,
}


def _divide(first: Array, second: Array) -> Array:
    """Divide; the quotient of integers is rounded towards zero, as ONNX does."""
    if first.dtype.kind in "iu" and second.dtype.kind in "iu":
        if np.any(second == 0):
            raise Unsupported("a division by zero")
        quotient: Array = np.trunc(np.divide(first, second)).astype(first.dtype)
        return quotient
    return np.divide(first, second)


def _cast(values: list[Array], attributes: Attributes) -> Array:
    if attributes["to"] not in _ONNX_TYPES:
        raise Unsupported(f"data type {attributes['to']}")
    return values[0].astype(_ONNX_TYPES[attributes["to"]])


def _slice(values: list[Array], attributes: Attributes) -> Array:
    index: list[slice] = [slice(None)] * values[0].ndim
    for axis, start, stop, step in attributes["cuts"]:
        index[axis] = slice(start, None if stop < 0 else stop, step)
    return values[0][tuple(index)]


def _reduce(how: Callable[..., Any]) -> "Fold":
    def fold(values: list[Array], attributes: Attributes) -> Array:
        return np.asarray(how(values[0], axis=attributes["axes"], keepdims=attributes["keepdims"]), values[0].dtype)

    return fold


def _unary(how: Callable[[Any], Any]) -> "Fold":
    return lambda values, _attributes: np.asarray(how(values[0]))


def _binary(how: Callable[[Any, Any], Any]) -> "Fold":
    return lambda values, _attributes: np.asarray(how(values[0], values[1]))


def _pad(values: list[Array], attributes: Attributes) -> Array:
    if attributes["mode"] != "constant" or min(min(pair) for pair in attributes["pads"]) < 0:
        raise Unsupported("padding of this mode on constants")
    return np.pad(values[0], attributes["pads"], constant_values=attributes["value"])


def _gather_nd(values: list[Array], attributes: Attributes) -> Array:
    axes, indices = attributes["axes"], np.array(attributes["indices"], np.int64)
    return values[0].reshape(-1, *values[0].shape[axes:])[indices]


def _cumulative_sum(values: list[Array], attributes: Attributes) -> Array:
    axis = attributes["axis"]
    array: Any = np.flip(values[0], axis) if attributes["reverse"] else values[0]
    summed = np.cumsum(array, axis, dtype=array.dtype)
    summed = summed - array if attributes["exclusive"] else summed
    return np.flip(summed, axis) if attributes["reverse"] else np.asarray(summed)


def _is_infinite(values: list[Array], attributes: Attributes) -> Array:
    array: Any = values[0]
    negative = np.isneginf(array) & bool(attributes["detect_negative"])
    return np.asarray(negative | (np.isposinf(array) & bool(attributes["detect_positive"])))


def _batchnorm(values: list[Array], attributes: Attributes) -> tuple[Array, ...]:
    """Return the normalised array; in training mode by its own mean and variance, with the statistics that follow."""
    scale, bias, *stored = values[1:]
    x: Any = values[0]
    moments: list[Any] = stored
    if attributes["training"]:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        moments = [np.mean(x, axes, dtype=np.float64), np.var(x, axes, dtype=np.float64)]
    wide: list[Any] = [np.reshape(array, (1, -1, *(1,) * (x.ndim - 2))) for array in (scale, bias, *moments)]
    normal = (x - wide[2]) / np.sqrt(wide[3] + attributes["epsilon"]) * wide[0] + wide[1]
    kept = attributes["momentum"]
    moved = [kept * old + (1 - kept) * new for old, new in zip(stored, moments, strict=True)]
    return tuple(np.asarray(array, x.dtype) for array in (normal, *moved))


_matmul = _binary(np.matmul)


def _gemm(values: list[Array], attributes: Attributes) -> Array:
    first = values[0].T if attributes["flip_a"] else values[0]
    second = values[1].T if attributes["flip_b"] else values[1]
    product: Any = _matmul([first, second], attributes)
    product = attributes["alpha"] * product
    return np.asarray(product + attributes["beta"] * values[2] if len(values) > 2 else product, first.dtype)


def _einsum(values: list[Array], attributes: Attributes) -> Array:
    operands: list[Any] = list(values)  # Any, because the arrays may have different element types
    return np.asarray(np.einsum(attributes["equation"], *operands))


def _softmax(values: list[Array], attributes: Attributes) -> Array:
    axis = attributes["axis"]
    powers = np.exp(values[0] - values[0].max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


Fold = Callable[[list[Array], Attributes], Array | tuple[Array, ...]]
"""Computes the output of an operator, or a tuple of its outputs, from its inputs and completed attributes."""

VIEWS = {"Identity", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice"}  # these operators copy no values

FOLDS: dict[str, Fold] = {
    "Identity": lambda values, _: values[0],
    "Reshape": lambda values, attributes: values[0].reshape(attributes["shape"]),
    "Squeeze": lambda values, attributes: np.squeeze(values[0], attributes["axes"]),
    "Unsqueeze": lambda values, attributes: np.expand_dims(values[0], attributes["axes"]),
    "Transpose": lambda values, attributes: values[0].transpose(attributes["perm"]),
    "Concat": lambda values, attributes: np.concatenate(values, attributes["axis"]),
    "Slice": _slice,
    "Split": lambda values, a: tuple(np.split(values[0], np.cumsum(a["sizes"])[:-1], a["axis"])),
    "Gather": lambda values, attributes: np.take(
        values[0], np.array(attributes["indices"], np.int64), attributes["axis"]
    ),
    "GatherND": _gather_nd,
    "Expand": lambda values, attributes: np.broadcast_to(values[0], attributes["shape"]),
    "Tile": lambda values, attributes: np.tile(values[0], attributes["repeats"]),
    "Pad": _pad,
    "Range": lambda values, _: np.asarray(np.arange(*(value.item() for value in values)), values[0].dtype),
    "Trilu": lambda values, a: np.triu(values[0], a["k"]) if a["upper"] else np.tril(values[0], a["k"]),
    "CumSum": _cumulative_sum,
    "Cast": _cast,
    "Where": lambda values, _: np.where(values[0], values[1], values[2]),
    "Clip": lambda values, a: np.clip(values[0], a["min"], a["max"]).astype(values[0].dtype),
    "MatMul": _matmul,
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _binary(_divide),
    "Pow": lambda values, _: np.power(values[0], values[1]).astype(values[0].dtype),
    "Mod": _binary(np.mod),
    "Equal": _binary(np.equal),
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "And": _binary(np.logical_and),
    "Or": _binary(np.logical_or),
    "Xor": _binary(np.logical_xor),
    "Max": lambda values, _: np.maximum.reduce(np.broadcast_arrays(*values)),
    "Min": lambda values, _: np.minimum.reduce(np.broadcast_arrays(*values)),
    "Sum": lambda values, _: sum(values[1:], start=values[0]),
    "Not": _unary(np.logical_not),
    "IsNaN": _unary(np.isnan),
    "IsInf": _is_infinite,
    "Neg": _unary(np.negative),
    "Abs": _unary(np.abs),
    "Sqrt": _unary(np.sqrt),
    "Exp": _unary(np.exp),
    "Log": _unary(np.log),
    "Reciprocal": _unary(np.reciprocal),
    "Relu": _unary(lambda x: np.maximum(x, 0)),
    "Sigmoid": _unary(lambda x: 1 / (1 + np.exp(-x))),
    "Tanh": _unary(np.tanh),
    "Softmax": _softmax,
    "BatchNormalization": _batchnorm,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "Round": _unary(np.round),
    "Sign": _unary(np.sign),
    "Sin": _unary(np.sin),
    "Cos": _unary(np.cos),
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
    "ReduceProd": _reduce(np.prod),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceL1": _reduce(lambda x, **axes: np.sum(np.abs(x), **axes)),
    "ReduceL2": _reduce(lambda x, **axes: np.sqrt(np.sum(np.square(x), **axes))),
    "ReduceSumSquare": _reduce(lambda x, **axes: np.sum(np.square(x), **axes)),
}
