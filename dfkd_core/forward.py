"""Forwards with something around them: eval mode for a while, and what one layer reads on the way."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from dfkd_core.engine import widened


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
