"""BatchNorms that exist only during training. A student without normalisation layers gets one behind each convolution;
before the export they are folded into the convolutions.

Exporters fold a teacher's BatchNorms away. A student that is pruned from such a teacher carries the same signal in
fewer channels, so the scale of its activations is wrong, and no layer corrects it. Each BatchNorm therefore starts with
the mean and the deviation of the teacher's channel (Jordan et al.: *REPAIR: REnormalizing Permuted Activations for
Interpolation Repair*, ICLR 2023, https://arxiv.org/abs/2211.08403) and learns from there.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dfkd_core.networks.batchnorm import NormalisedConv2d
from dfkd_core.networks.hooks import Wanted, calibrate, evaluating, hooked, layers_in_order

NORMALISING = (_NormBase, nn.GroupNorm, nn.LayerNorm)
MIN_DEPTH = 5
"""Convolutions: fewer pass the signal on well enough, and BatchNorms cost short runs accuracy."""


@dataclass(frozen=True, slots=True)
class Channels:
    """The moments of the output of a convolution of the teacher, each (channels,)."""

    mean: Tensor
    variance: Tensor
    bias: Tensor | None


def is_normalised(network: nn.Module) -> bool:
    """True if the network has a normalisation layer of its own."""
    return any(isinstance(module, NORMALISING) for module in network.modules())


def is_deep(network: nn.Module) -> bool:
    """True if the network has at least MIN_DEPTH convolutions and needs normalisation to train."""
    return sum(isinstance(module, nn.Conv2d) for module in network.modules()) >= MIN_DEPTH


def fold(student: nn.Module) -> nn.Module:
    """Return the same network with plain convolutions, into which the temporary BatchNorms are folded."""
    for name, module in list(student.named_modules()):
        if isinstance(module, NormalisedConv2d):
            student.set_submodule(name, module.folded())
    return student


def repair(student: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    """Set the BatchNorms of a student that was pruned from `teacher`, so that each channel has its teacher's moments.

    Both networks process `images` (N, C, H, W) in eval mode. A channel of the student and a channel of the teacher are
    the same if they have the same bias, because pruning changes no bias. Where the biases do not identify the channels
    of a layer, its BatchNorm keeps the student's own moments.
    """
    theirs = _channels(teacher, images)
    ours = [layer for layer in layers_in_order(student, images[:1]).values() if isinstance(layer, nn.Conv2d)]
    of_layer = dict(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else {}
    wanted: dict[nn.BatchNorm2d, Wanted] = {}
    for module in student.modules():
        if isinstance(module, NormalisedConv2d):
            convolution, norm = module
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            wanted[norm] = partial(_moments, channels=_cut_out(of_layer.get(convolution), convolution))
    calibrate(student, wanted, images)


def _moments(mean: Tensor, variance: Tensor, *, channels: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    return (mean, variance) if channels is None else channels


def _cut_out(channels: Channels | None, convolution: nn.Conv2d) -> tuple[Tensor, Tensor] | None:
    """Mean and variance of the channels that `convolution` has kept; None if the biases do not identify them."""
    if channels is None or channels.bias is None or convolution.bias is None:
        return None
    same = convolution.bias[:, None] == channels.bias[None, :]
    if not bool((same.sum(dim=1) == 1).all()):
        return None
    kept = same.int().argmax(dim=1)
    return channels.mean[kept], channels.variance[kept]


@torch.no_grad()
def _channels(teacher: nn.Module, images: Tensor) -> list[Channels]:
    """Return the moments of every convolution in the order in which they run; empty if a convolution runs twice."""
    layers = [layer for layer in layers_in_order(teacher, images[:1]).values() if isinstance(layer, nn.Conv2d)]
    found: list[Channels] = []

    def note(layer: nn.Module, _inputs: tuple[Tensor, ...], maps: Tensor) -> None:
        variance, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
        bias = layer.bias if isinstance(layer.bias, Tensor) else None
        found.append(Channels(mean, variance, bias))

    with hooked(layer.register_forward_hook(note) for layer in layers), evaluating(teacher):
        teacher(images)
    return found
