"""Helpers around a forward: temporary eval mode, the input of one layer, the order of layers, BatchNorm calibration."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfkd_core.networks.precision import to_float32

COMPUTING = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
Wanted = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps mean and variance of a BatchNorm's input to the wanted mean and variance of its output, each (channels,)."""


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks when the context closes."""
    kept = list(handles)
    try:
        yield
    finally:
        for handle in kept:
            handle.remove()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Hold the network in eval mode, so that BatchNorm buffers do not change, and restore its mode afterwards."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


@contextmanager
def buffers_kept_on_error(*networks: nn.Module) -> Iterator[None]:
    """Give the networks their former buffers back if the context is left by an exception."""
    buffers = [buffer for network in networks for buffer in network.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    except BaseException:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        raise


def forward_with_input_of(layer: nn.Module, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the network's outputs for images (N, C, H, W), and the input of `layer`: (N, F), at least float32."""
    seen: list[Tensor] = []
    with hooked([layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))]):
        outputs: Tensor = network(images)
    return outputs, to_float32(seen[0]).flatten(1)


def layers_in_order(network: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """Return the layers with weights by name, in the order in which they run; empty if a layer runs twice."""
    order: list[str] = []
    handles = (
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: order.append(name))
        for name, module in network.named_modules()
        if isinstance(module, COMPUTING)
    )
    with hooked(handles), torch.no_grad(), evaluating(network):
        network(images)
    return {name: network.get_submodule(name) for name in order} if len(set(order)) == len(order) else {}


@torch.no_grad()
def calibrate(network: nn.Module, wanted: Mapping[nn.BatchNorm2d, Wanted], images: Tensor) -> None:
    """Set the statistics of BatchNorm layers from `images` (N, C, H, W), in the order in which the layers run.

    Each layer also gets the scale and the shift with which its output has the `wanted` moments in eval mode.
    """

    def settle(norm: nn.BatchNorm2d, maps: Tensor) -> None:
        variance, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        wanted_mean, wanted_variance = wanted[norm](mean, variance)
        norm.weight.copy_((wanted_variance + norm.eps).sqrt())
        norm.bias.copy_(wanted_mean)

    handles = (norm.register_forward_pre_hook(lambda norm, inputs: settle(norm, inputs[0])) for norm in wanted)
    with hooked(handles), evaluating(network):
        network(images)
