"""PyTorch functions for the operators of transformers; every step can be differentiated twice."""

from collections.abc import Sequence

import torch
from torch import Tensor


def einsum(*operands: Tensor, equation: str) -> Tensor:
    """Compute a product along named axes."""
    product: Tensor = torch.einsum(equation, *operands)
    return product


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    heads: Sequence[int],
    folded: bool,
    causal: bool,
    scale: float,
    softcap: float,
) -> Tensor:
    """Compute softmax(scale Q Kᵀ + mask) V; `heads` counts query and key heads, and query heads may share a key head.

    Operands and result are (N, heads, length, size), or (N, length, heads · size) if `folded` is True.
    """
    if folded:
        query, key, value = _unfold(query, heads[0]), _unfold(key, heads[1]), _unfold(value, heads[1])
    shared = heads[0] // heads[1]
    if shared > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scores = scale * query @ key.transpose(-2, -1)  # (N, heads, queries, keys)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    mixed = scores.softmax(-1) @ value
    return mixed.transpose(1, 2).flatten(2) if folded else mixed


def _unfold(part: Tensor, heads: int) -> Tensor:
    return part.reshape(*part.shape[:2], heads, -1).transpose(1, 2)


def safe_softmax(x: Tensor, *, axis: int) -> Tensor:
    """Compute the softmax; where all entries along the axis are minus infinity, the result is 0 and has no gradient."""
    # in the student's file, `all` over a comparison would be a cast to whole numbers, which the importer refuses
    hidden = x.detach().amax(axis, keepdim=True) == -torch.inf
    return x.masked_fill(hidden, 0.0).softmax(axis).masked_fill(hidden, 0.0)


def rms_norm(x: Tensor, scale: Tensor, *, axis: int, epsilon: float) -> Tensor:
    """Divide the tensor by its root mean square over the axes from `axis` on, then scale it."""
    axes = tuple(range(axis, x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale
