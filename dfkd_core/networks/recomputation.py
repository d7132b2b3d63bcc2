"""Computes a batch in chunks and keeps no activations between them: a gradient computes those of one chunk again.

Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost, 2016, https://arxiv.org/abs/1604.06174. The
gradient is that of the whole batch, for a second forward pass. A BatchNorm in training mode sees one chunk at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dfkd_core.spec.compute import LEAST_TRAINED

Compute = Callable[..., Any]
"""Inputs, each (N, …) → one tensor (N, …) or a tuple of them."""


def in_chunks(compute: Compute, network: nn.Module, *inputs: Tensor, most: int | None) -> Any:  # Any: see `Compute`
    """Return `compute(*inputs)`, which calls `network`, computed for at most `most` rows at a time, but at least two.

    The parts are of about equal sizes.
    """
    rows = len(inputs[0])
    if most is None or rows <= max(most, LEAST_TRAINED):
        return compute(*inputs)
    count = min(-(-rows // most), rows // LEAST_TRAINED)
    read = _recomputing if torch.is_grad_enabled() else _computing
    parts = zip(*(torch.tensor_split(values, count) for values in inputs), strict=True)
    return _joined([read(compute, network, *part) for part in parts])


def _computing(compute: Compute, _network: nn.Module, *inputs: Tensor) -> Any:  # Any: as above
    return compute(*inputs)


def _recomputing(compute: Compute, network: nn.Module, *inputs: Tensor) -> Any:  # Any: as above
    """Compute without keeping activations. They are computed again with the modes and buffers of the first time."""
    first = _Snapshot(network)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), first.put_back()

    return checkpoint(
        compute,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=contexts,
        early_stop=False,  # the whole forward, so that it ends in a beat
    )


class _Snapshot:
    """The modes and the buffers of a network at one time."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modes = [(module, module.training) for module in network.modules()]
        self._buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Let the network be as it was, and afterwards as it is."""
        present = _Snapshot(self._network)
        self._apply()
        try:
            yield
        finally:
            present._apply()

    @torch.no_grad()
    def _apply(self) -> None:
        for module, training in self._modes:
            module.training = training
        for buffer, value in self._buffers:
            buffer.copy_(value)


def _joined(parts: list[Any]) -> Any:  # Any: as above
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
    return torch.cat(parts)
