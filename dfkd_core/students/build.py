"""Build a torch network from a layer description. The parameters are counted from the same description."""

import math
from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from dfkd_core.architectures import layers
from dfkd_core.architectures.layers import Chain, Initialiser, Layer, NetworkDescription
from dfkd_core.networks.pooling import MaxPool2d


class Network(nn.Sequential):
    """Images (N, C, H, W) to logits (N, num_classes). `classifier` is the last linear layer."""

    classifier: nn.Linear
    description: NetworkDescription


class ResidualBlock(nn.Module):
    """after(body(h) + shortcut(h)) with h = before(x); all parts are children of the block under their own names."""

    def __init__(self, block: layers.Residual, *, device: torch.device) -> None:
        super().__init__()
        for name, layer in (*block.before, *block.body, *block.shortcut, *block.after):
            self.add_module(name, _module(layer, device=device))
        self._chains = tuple(
            tuple(name for name, _ in chain) for chain in (block.before, block.body, block.shortcut, block.after)
        )

    def forward(self, x: Tensor) -> Tensor:
        before, body, shortcut, after = self._chains
        h = self._run(before, x)
        return self._run(after, self._run(body, h) + self._run(shortcut, h))

    def _run(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


class CountedDropout(nn.Module):
    """Dropout whose mask follows from a seed and the number of masks drawn so far, both part of the state.

    A run that is resumed from a state dict therefore drops the same values as an uninterrupted run, and the global
    random state is not touched. Weight files may lack the seed and the count; the present ones then stay.
    """

    seed: Tensor
    draws: Tensor

    def __init__(self, probability: float, *, device: torch.device) -> None:
        super().__init__()
        self.probability = probability
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64, device=device))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        generator = torch.Generator(device=x.device)
        generator.manual_seed(int(self.seed) + int(self.draws))
        self.draws += 1
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.probability
        return x * kept / (1 - self.probability)

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:  # type: ignore[no-untyped-def]  # torch's own
        for name in ("seed", "draws"):
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def build_network(description: NetworkDescription, *, generator: torch.Generator) -> Network:
    """Return the described network in training mode, float32, on the generator's device.

    Every initial weight is drawn from `generator`, in the order of the description; the global random state is not
    touched. Equal generators give equal bits.
    """
    # Modules are made without storage first: their constructors would draw weights from the global generator.
    network = Network(_modules(description.layers, device=torch.device("meta")))
    network.to_empty(device=generator.device)
    network.description = description
    for name, layer in description.layers:
        _initialise(network.get_submodule(name), layer, generator)
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if getattr(network, "classifier", None) is not linears[-1]:
        # Past nn.Module's own bookkeeping: as a registered child the layer would be listed twice in the state.
        network.__dict__["classifier"] = linears[-1]
    return network


def _modules(chain: Chain, *, device: torch.device) -> "OrderedDict[str, nn.Module]":
    return OrderedDict((name, _module(layer, device=device)) for name, layer in chain)


def _module(layer: Layer, *, device: torch.device) -> nn.Module:
    match layer:
        case layers.Sequential():
            return nn.Sequential(_modules(layer.chain, device=device))
        case layers.Residual():
            return ResidualBlock(layer, device=device)
        case layers.Conv():
            return _convolution(layer, device=device)
        case layers.Linear():
            return nn.Linear(layer.in_features, layer.out_features, device=device)
        case layers.BatchNorm():
            return nn.BatchNorm2d(layer.channels, device=device)
    return CountedDropout(layer.probability, device=device) if isinstance(layer, layers.Dropout) else _plain(layer)


def _convolution(layer: layers.Conv, *, device: torch.device) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        bias=layer.bias,
        device=device,
    )


def _plain(layer: Layer) -> nn.Module:
    """Layers that carry no tensors."""
    match layer:
        case layers.ReLU():
            return nn.ReLU()
        case layers.ReLU6():
            return nn.ReLU6()
        case layers.MaxPool():
            return MaxPool2d(layer.kernel)
        case layers.AvgPool():
            return nn.AvgPool2d(layer.kernel)
        case layers.GlobalAvgPool():
            return nn.AdaptiveAvgPool2d(1)
        case layers.Flatten():
            return nn.Flatten()
    raise TypeError(f"no torch module for {type(layer).__name__}")


@torch.no_grad()
def _initialise(module: nn.Module, layer: Layer, generator: torch.Generator) -> None:
    match layer:
        case layers.Sequential():
            _initialise_chain(module, layer.chain, generator)
        case layers.Residual():
            _initialise_chain(module, layer.before + layer.body + layer.shortcut + layer.after, generator)
        case layers.Conv() | layers.Linear():
            draw_weights(cast("nn.Conv2d | nn.Linear", module), layer.init, generator=generator)
        case layers.BatchNorm():
            cast("nn.BatchNorm2d", module).reset_parameters()  # ones and zeros: nothing is drawn
        case layers.Dropout():
            dropout = cast("CountedDropout", module)
            dropout.draws.zero_()
            dropout.seed.random_(2**62, generator=generator)


def _initialise_chain(module: nn.Module, chain: Chain, generator: torch.Generator) -> None:
    for name, layer in chain:
        _initialise(module.get_submodule(name), layer, generator)


@torch.no_grad()
def draw_weights(module: nn.Conv1d | nn.Conv2d | nn.Linear, init: Initialiser, *, generator: torch.Generator) -> None:
    """Draw the weights and the bias of one layer anew."""
    bound = 1 / math.sqrt(module.weight[0].numel())  # fan_in
    fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
    match init:
        case Initialiser.UNIFORM | Initialiser.UNIFORM_ZERO_BIAS:
            module.weight.uniform_(-bound, bound, generator=generator)
        case Initialiser.HE_NORMAL:
            module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
        case Initialiser.SMALL_NORMAL:
            module.weight.normal_(0, 0.01, generator=generator)
    if module.bias is None:
        return
    if init is Initialiser.UNIFORM:
        module.bias.uniform_(-bound, bound, generator=generator)
    else:
        module.bias.zero_()
