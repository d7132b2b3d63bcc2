"""BatchNorm: reading statistics through hooks, putting layers behind convolutions, and re-estimating buffers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from dfkd_core.networks import losses
from dfkd_core.networks.hooks import buffers_kept_on_error, evaluating
from dfkd_core.networks.precision import Engine, to_float32

Moments = tuple[Tensor, Tensor, Tensor, Tensor]
"""Batch mean, batch variance, running mean and running variance of one layer, each (channels,)."""


class _Reader(ABC):
    """Reads every input of the network's BatchNorm2d layers while the reader is open. Closing removes the hooks."""

    def __init__(self, network: nn.Module) -> None:
        self._layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._handles = [layer.register_forward_pre_hook(self._read) for layer in self._layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    @abstractmethod
    def _read(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Read the input of one layer, (N, C, H, W)."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop everything that was read."""


class BatchNormStatistics(_Reader):
    """Keeps the BatchNorm2d input statistics of the latest forward of `network` while the reader is open.

    `distance()` is the loss of the latest forward, differentiable with respect to the images.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._moments: dict[nn.Module, Moments] = {}

    def _read(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not isinstance(layer, nn.BatchNorm2d) or layer.running_mean is None or layer.running_var is None:
            return
        mean, variance = channel_moments(to_float32(inputs[0]))
        self._moments[layer] = (mean, variance, layer.running_mean.detach(), layer.running_var.detach())

    def _forget(self) -> None:
        self._moments.clear()

    @property
    def moments(self) -> list[Moments]:
        """Return the moments of each layer, in the order in which the layers run."""
        return list(self._moments.values())

    def distance(self) -> Tensor:
        """Return the sum over the layers of the two L2 distances; see `losses.batchnorm_distance`."""
        return losses.batchnorm_distance(self.moments)


class _ChannelMoments(torch.autograd.Function):
    """Computes mean and variance of each channel, with gradients, in a third of torch.var_mean's time on a CPU."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:  # Any: torch names no type for it
        mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        ctx.save_for_backward(maps, mean)
        return mean.flatten(), (maps - mean).square_().mean(dim=(0, 2, 3))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient of the values, (N, C, H, W).

        It is (gradient of the mean + 2 (value − mean) · gradient of the variance) / n, where n is the number of values
        in the channel.
        """
        maps, mean = ctx.saved_tensors
        of_mean, of_variance = (gradient.view(1, -1, 1, 1) * maps.shape[1] / maps.numel() for gradient in gradients)
        return torch.addcmul(of_mean - 2 * of_variance * mean, maps, 2 * of_variance)


def channel_moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel, (C,) each. `maps` is (N, C, H, W)."""
    moments: tuple[Tensor, Tensor] = _ChannelMoments.apply(maps)  # type: ignore[no-untyped-call]
    return moments


def joined_moments(parts: Sequence[Sequence[Moments]], counts: Sequence[int]) -> list[Moments]:
    """Return the moments of all images together; `parts` holds the moments of each layer for `counts` of the images."""
    weights = [count / sum(counts) for count in counts]
    joined = []
    for layer in zip(*parts, strict=True):
        weighted = list(zip(layer, weights, strict=True))
        mean = sum((weight * found[0] for found, weight in weighted), torch.zeros(()))
        square = sum((weight * (found[1] + found[0].square()) for found, weight in weighted), torch.zeros(()))
        joined.append((mean, square - mean.square(), *layer[0][2:]))
    return joined


class ChannelMeans(_Reader):
    """Keeps each image's channel means at all BatchNorm2d inputs of `network` while the reader is open."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._means: list[Tensor] = []

    def _read(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._means.append(to_float32(inputs[0]).mean(dim=(2, 3)))

    def _forget(self) -> None:
        self._means.clear()

    def all(self) -> Tensor:
        """Return the means of the one forward since the reader was opened: (N, channels of all layers)."""
        return torch.cat(self._means, dim=1)


class NormalisedConv2d(nn.Sequential):
    """A convolution and the BatchNorm that was put behind it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution, nn.BatchNorm2d(convolution.out_channels))

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """Return one convolution that computes what the convolution and the BatchNorm compute together in eval mode."""
        convolution, norm = self
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return nn.utils.fuse_conv_bn_eval(convolution.eval(), norm.eval())


def renormalise(network: nn.Module) -> None:
    """Put a BatchNorm with PyTorch's initial values behind every convolution."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            network.set_submodule(name, NormalisedConv2d(module))


@contextmanager
def _only_batchnorm_trains(network: nn.Module) -> Iterator[list[_BatchNorm]]:
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    with evaluating(network):
        for layer in layers:
            layer.train()
        yield layers


def has_batchnorm(network: nn.Module) -> bool:
    """Return whether the network has BatchNorm statistics that can be re-estimated."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


@torch.no_grad()
def reestimate(
    network: nn.Module, image_batches: Iterable[Tensor], *, engine: Engine | None = None, goes_on: bool = False
) -> None:
    """Replace every BatchNorm's running statistics by the plain average over the batches; nothing else changes.

    With `goes_on`, batches that earlier calls have taken in count too. A batch that is abandoned changes nothing.
    """
    engine = engine or Engine()
    with _only_batchnorm_trains(network) as layers:
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            if not goes_on:
                layer.reset_running_stats()
            layer.momentum = None  # cumulative average
        try:
            for images in image_batches:
                with buffers_kept_on_error(network):
                    engine(network, images)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
