"""PyTorch functions for the operators that reduce a tensor over some of its axes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def reduce_mean(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the mean over axes."""
    return x.mean(tuple(axes), keepdim=keepdims)


def reduce_sum(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the sum over axes."""
    return x.sum(tuple(axes), keepdim=keepdims)


def reduce_max(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the largest value over axes."""
    return x.amax(tuple(axes), keepdim=keepdims)


def reduce_min(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the smallest value over axes."""
    return x.amin(tuple(axes), keepdim=keepdims)


def reduce_prod(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the product over axes."""
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keepdims)
    return x


def reduce_l1(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the sum of absolute values over axes."""
    return x.abs().sum(tuple(axes), keepdim=keepdims)


def reduce_l2(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the Euclidean norm over axes."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=tuple(axes), keepdim=keepdims)
    return norm


def reduce_sum_square(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the sum of squares over axes."""
    return x.square().sum(tuple(axes), keepdim=keepdims)


def reduce_log_sum(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the logarithm of the sum over axes."""
    return x.sum(tuple(axes), keepdim=keepdims).log()


def reduce_log_sum_exp(x: Tensor, *, axes: Sequence[int], keepdims: bool) -> Tensor:
    """Return the logarithm of the sum of exponentials over axes."""
    return x.logsumexp(tuple(axes), keepdim=keepdims)


REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
    "ReduceMax": reduce_max,
    "ReduceMin": reduce_min,
    "ReduceProd": reduce_prod,
    "ReduceL1": reduce_l1,
    "ReduceL2": reduce_l2,
    "ReduceSumSquare": reduce_sum_square,
    "ReduceLogSum": reduce_log_sum,
    "ReduceLogSumExp": reduce_log_sum_exp,
}
