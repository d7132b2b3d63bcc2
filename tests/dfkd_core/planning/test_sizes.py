"""The sizes of generators, decoders and encoders are those of the networks that a run builds."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dfkd_core.networks.generators import Encoder, Generator
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.options.passes import Network
from dfkd_core.planning.sizes import FLOAT_BYTES, NetworkSize, sizes_of
from tests.dfkd_core.tiny import tiny_config

LATENT, WIDTH = 24, 8
VALUED = (
    "convolution",
    "batch_norm",
    "leaky_relu",
    "upsample",
    "div",
    "sigmoid",
    "tanh",
    "addmm",
    "linear",
    "mul",
    "add",
)


class Counted(TorchDispatchMode):
    """Counts the values that the operations of a forward pass write, where they make an array of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(part in str(func) for part in VALUED):
            first = found[0] if isinstance(found, tuple | list) else found
            self.values += first.numel() if isinstance(first, Tensor) and first.dim() > 1 else 0
        return found


def macs_of(network: nn.Module, run: Any) -> int:
    """The multiply-adds of one image in convolutions and linear layers."""
    found = 0

    def count(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal found
        weight = layer.weight
        assert isinstance(weight, Tensor)
        found += output[0].numel() * math.prod(weight.shape[1:])

    hooks = [
        layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


def check(size: NetworkSize, network: nn.Module, inputs: Tensor, *, within: float = 0.05) -> None:
    assert size.macs == macs_of(network, lambda: network(inputs))
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert size.parameters == sum(weight.numel() for weight in weights)
    with torch.no_grad(), Counted() as counted:
        network(inputs)
    assert FLOAT_BYTES * counted.values / len(inputs) == pytest.approx(size.activation_bytes, rel=within)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 20), (3, 9, 15)])
@pytest.mark.parametrize("encoder", ["strided", "published"])
def test_an_encoder_has_the_planned_size(encoder: str, shape: tuple[int, int, int]) -> None:
    options = {"encoder": encoder, "latent_dim": LATENT, "width": WIDTH}
    config = tiny_config(memory="vae", memory_options=options)
    network = Encoder(
        shape,
        latent_dim=LATENT,
        width=WIDTH,
        batchnorm_eps=1e-5,
        published=encoder == "published",
        generator=torch.Generator().manual_seed(0),
    )
    check(sizes_of(config, shape)[Network.ENCODER], network, torch.randn(4, *shape))


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 20)])
def test_a_decoder_has_the_planned_size(shape: tuple[int, int, int]) -> None:
    config = tiny_config(memory="vae", memory_options={"latent_dim": LATENT, "width": WIDTH})
    network = Generator(
        InputSpace(shape, (0.0,) * shape[0], (1.0,) * shape[0], range_known=True),
        latent_dim=LATENT,
        width=WIDTH,
        batchnorm_eps=1e-5,
        spectral_norm=False,
        output="standardised",
        generator=torch.Generator().manual_seed(0),
    )
    check(sizes_of(config, shape)[Network.DECODER], network, torch.randn(4, LATENT), within=0.15)
