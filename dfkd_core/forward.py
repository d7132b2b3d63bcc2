"""Forwards with something around them: eval mode for a while, what one layer reads, in which order layers run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dfkd_core.engine import widened

COMPUTING = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, the former mode afterwards: BatchNorm buffers do not move."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def forward_with_input_of(layer: nn.Module, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the network says of images (N, C, H, W), and what its `layer` reads for that: (N, F), at least float32."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        outputs: Tensor = network(images)
    finally:
        hook.remove()
    return outputs, widened(seen[0]).flatten(1)


def layers_in_order(network: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """The layers with weights by name, in the order in which they run; empty where one runs twice."""
    order: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: order.append(name))
        for name, module in network.named_modules()
        if isinstance(module, COMPUTING)
    ]
    try:
        with torch.no_grad(), evaluating(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: network.get_submodule(name) for name in order} if len(set(order)) == len(order) else {}
