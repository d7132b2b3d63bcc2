"""BatchNorms for the time of training: put behind the convolutions of a student that has no normalisation of its own,
folded into them again before it leaves.

Exporters fold a teacher's BatchNorms away. What is cut out of such a network has fewer channels to carry the same
signal and nothing that sets it right. Each BatchNorm therefore starts with the mean and the deviation that the
teacher's channel has (Jordan et al.: *REPAIR: REnormalizing Permuted Activations for Interpolation Repair*, ICLR 2023,
https://arxiv.org/abs/2211.08403), and learns on.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dfkd_core.networks.hooks import Wanted, calibrate, evaluating, hooked, layers_in_order

NORMALISING = (_NormBase, nn.GroupNorm, nn.LayerNorm)
MIN_DEPTH = 5
"""Convolutions: fewer pass the signal on well enough, and BatchNorms cost short runs accuracy."""


class NormalisedConv2d(nn.Sequential):
    """A convolution and the BatchNorm that was put behind it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution, nn.BatchNorm2d(convolution.out_channels))

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """One convolution that does what both do in eval mode."""
        convolution, norm = self
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return nn.utils.fuse_conv_bn_eval(convolution.eval(), norm.eval())


@dataclass(frozen=True, slots=True)
class Channels:
    """What a convolution of the teacher puts out, each (channels,)."""

    mean: Tensor
    variance: Tensor
    bias: Tensor | None


def is_normalised(network: nn.Module) -> bool:
    """Whether some layer normalises already."""
    return any(isinstance(module, NORMALISING) for module in network.modules())


def is_deep(network: nn.Module) -> bool:
    """Whether its signal passes so many convolutions that something has to set it right."""
    return sum(isinstance(module, nn.Conv2d) for module in network.modules()) >= MIN_DEPTH


def renormalise(student: nn.Module) -> None:
    """Put a BatchNorm, as PyTorch starts it, behind every convolution."""
    for name, module in list(student.named_modules()):
        if isinstance(module, nn.Conv2d):
            student.set_submodule(name, NormalisedConv2d(module))


def fold(student: nn.Module) -> nn.Module:
    """The same network, its own convolutions in the place of the normalised ones."""
    for name, module in list(student.named_modules()):
        if isinstance(module, NormalisedConv2d):
            student.set_submodule(name, module.folded())
    return student


def repair(student: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    """Let the BatchNorms of a renormalised student, cut out of `teacher`, give each channel its teacher's moments.

    Both see `images` (N, C, H, W) in eval mode. Which of the teacher's channels one is, its bias tells, which no cut
    changes; a layer where it does not passes its own moments on.
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
    """Mean and variance of the channels that `convolution` has kept; None where that cannot be told."""
    if channels is None or channels.bias is None or convolution.bias is None:
        return None
    same = convolution.bias[:, None] == channels.bias[None, :]
    if not bool((same.sum(dim=1) == 1).all()):
        return None
    kept = same.int().argmax(dim=1)
    return channels.mean[kept], channels.variance[kept]


@torch.no_grad()
def _channels(teacher: nn.Module, images: Tensor) -> list[Channels]:
    """Of every convolution, in the order in which they run; empty where one runs twice."""
    layers = [layer for layer in layers_in_order(teacher, images[:1]).values() if isinstance(layer, nn.Conv2d)]
    found: list[Channels] = []

    def note(layer: nn.Module, _inputs: tuple[Tensor, ...], maps: Tensor) -> None:
        variance, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
        bias = layer.bias if isinstance(layer.bias, Tensor) else None
        found.append(Channels(mean, variance, bias))

    with hooked(layer.register_forward_hook(note) for layer in layers), evaluating(teacher):
        teacher(images)
    return found
