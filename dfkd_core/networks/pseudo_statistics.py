"""Pseudo-statistics: what the convolutions of a teacher without BatchNorm put out for drawn pictures.

Exporters fold a teacher's BatchNorms into its convolutions, and with them the statistics that inversion matches. The
moments of each convolution's output on pictures that are drawn by rule stand in for those on the training images, which
nobody has. Inversion then keeps its images near what the teacher sees in natural pictures, as with true statistics:
Yin et al., *Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion*, CVPR 2020,
https://arxiv.org/abs/1912.08795, eq. 4.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dfkd_core.networks.hooks import hooked
from dfkd_core.networks.precision import to_float32
from dfkd_core.networks.teacher import Teacher

Sums = tuple[int, Tensor, Tensor]
"""Number of values of each channel, their sum and the sum of their squares, (channels,) each, float64."""


def with_pseudo_statistics(teacher: Teacher, pictures: Iterable[Tensor]) -> Teacher:
    """Return a teacher that offers "batchnorm": behind each convolution is a BatchNorm that changes nothing.

    Its running statistics are the moments of the convolution's output over all batches of `pictures`, (N, C, H, W)
    each. The weights are those of `teacher`, not copies. A teacher with BatchNorms, or without convolutions, is
    returned as it is.
    """
    if "batchnorm" in teacher.offers:
        return teacher
    network = _sharing_weights(teacher.network)
    sums = _sums_of_outputs(network, pictures, teacher)
    for name, convolution in list(network.named_modules()):
        if isinstance(convolution, nn.Conv2d) and convolution in sums:
            network.set_submodule(name, nn.Sequential(convolution, _unchanging(*sums[convolution])))
    return Teacher(
        network,
        teacher.input_space,
        num_classes=teacher.num_classes,
        classifier=_same_module(teacher, network),
        warnings=teacher.warnings,
        engine=teacher.engine,
        interface=teacher.interface,
    )


def _sharing_weights(network: nn.Module) -> nn.Module:
    """Return a copy of the modules that holds the same tensors."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _same_module(teacher: Teacher, network: nn.Module) -> nn.Module | None:
    """Return the module of the copy that is the teacher's classifier."""
    for name, module in teacher.network.named_modules():
        if module is teacher.classifier:
            return network.get_submodule(name)
    return None


@torch.no_grad()
def _sums_of_outputs(network: nn.Module, pictures: Iterable[Tensor], teacher: Teacher) -> dict[nn.Module, Sums]:
    """Return the sums of each convolution's outputs over all pictures."""
    sums: dict[nn.Module, Sums] = {}

    def add(convolution: nn.Module, _inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        values = to_float32(outputs).transpose(0, 1).flatten(1).double()
        count, total, squares = sums.get(convolution, (0, torch.zeros(()), torch.zeros(())))
        total, squares = total.to(values.device) + values.sum(dim=1), squares.to(values.device) + values.square().sum(1)
        sums[convolution] = (count + values.shape[1], total, squares)

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    with hooked([layer.register_forward_hook(add) for layer in layers]):
        for batch in pictures:
            teacher.engine(network, batch)
    return sums


def _unchanging(count: int, total: Tensor, squares: Tensor) -> nn.BatchNorm2d:
    """Return a BatchNorm in eval mode with the statistics of a channel's values, which returns what it is given."""
    mean = total / count
    norm = nn.BatchNorm2d(len(mean)).to(mean.device)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_((squares / count - mean.square()).clamp(min=0))
    norm.weight.data.copy_((norm.running_var + norm.eps).sqrt())
    norm.bias.data.copy_(norm.running_mean)
    return norm.eval().requires_grad_(False)
