"""Inheritance: a named student that is a thinner version of its teacher starts from the teacher's best channels.

The two networks fit when they run the same kinds of layers in the same order and every layer of the student is at most
as wide. Then the teacher is pruned to the student's channel counts, and weights and statistics are copied.
"""

from functools import partial

import torch
from torch import Tensor, nn

from dfkd_core.networks.hooks import calibrate, layers_in_order
from dfkd_core.students.narrowing import Original, narrow_to_layers

Kind = tuple[object, ...]


def inherit(student: nn.Module, original: Original, images: Tensor) -> bool:
    """Give the student the weights of its pruned teacher. If the two do not fit, change nothing and return False.

    If the teacher's BatchNorms were folded into its convolutions, the student's BatchNorms take their statistics from
    `images` (N, C, H, W), so that they do not change the signal at first. Both networks are on the CPU.
    """
    theirs, ours = layers_in_order(original.network, images[:1]), layers_in_order(student, images[:1])
    folded = not any(isinstance(layer, nn.BatchNorm2d) for layer in theirs.values())
    compared = {name: layer for name, layer in ours.items() if not (folded and isinstance(layer, nn.BatchNorm2d))}
    if [kind_of(layer) for layer in theirs.values()] != [kind_of(layer) for layer in compared.values()]:
        return False
    widths = {name: _outputs(layer) for name, layer in zip(theirs, compared.values(), strict=True)}
    narrowed = narrow_to_layers(original, widths)
    if narrowed is None:
        return False
    pairs = [(narrowed.get_submodule(name), own) for name, own in zip(theirs, compared.values(), strict=True)]
    if any(cut.weight.shape != own.weight.shape for cut, own in pairs):
        return False
    biases = {id(own): _copy(cut, own) for cut, own in pairs}
    if folded and len(compared) < len(ours):
        _settle(student, list(ours.values()), biases, images)
    return True


def kind_of(layer: nn.Module) -> Kind:
    """Return what two layers must share for one to take the other's weights."""
    if isinstance(layer, nn.Conv2d):
        depthwise = layer.groups == layer.in_channels and layer.groups > 1
        grouped = "depthwise" if depthwise else layer.groups
        return ("conv", layer.kernel_size, layer.stride, layer.padding, layer.dilation, grouped)
    return ("linear",) if isinstance(layer, nn.Linear) else ("batchnorm",)


def _outputs(layer: nn.Module) -> int:
    return len(layer.weight) if isinstance(layer.weight, Tensor) else 0


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> Tensor | None:
    """Copy weights and statistics. Returns the source's bias where the target has no place for it."""
    for name in ("weight", "running_mean", "running_var"):
        if isinstance(getattr(target, name, None), Tensor):
            getattr(target, name).copy_(getattr(source, name))
    bias = source.bias if isinstance(source.bias, Tensor) else None
    if isinstance(target.bias, Tensor):
        target.bias.copy_(torch.zeros_like(target.bias) if bias is None else bias)
        return None
    return bias


def _settle(student: nn.Module, ours: list[nn.Module], biases: dict[int, Tensor | None], images: Tensor) -> None:
    """Set every BatchNorm so that it adds the bias its convolution lost and does not change the signal of `images`."""

    def with_bias(mean: Tensor, variance: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        return mean if bias is None else mean + bias, variance

    before = zip([None, *ours], ours, strict=False)
    wanted = {
        layer: partial(with_bias, bias=biases.get(id(last)))
        for last, layer in before
        if isinstance(layer, nn.BatchNorm2d)
    }
    calibrate(student, wanted, images)
