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

from dfkd_core.networks.batchnorm import joined_moments, renormalise
from dfkd_core.networks.teacher import Teacher


@torch.no_grad()
def with_pseudo_statistics(teacher: Teacher, pictures: Iterable[Tensor]) -> Teacher:
    """Return a teacher that offers "batchnorm": behind each convolution is a BatchNorm that changes nothing.

    Its running statistics are the moments of the convolution's output over all batches of `pictures`, (N, C, H, W)
    each. The weights are those of `teacher`, not copies. A teacher with BatchNorms, or without convolutions, is
    returned as it is.
    """
    if "batchnorm" in teacher.offers:
        return teacher
    found = _sharing_weights(teacher)
    renormalise(found.network)
    if "batchnorm" not in found.offers:
        return teacher
    found.eval().requires_grad_(False)
    _pass_on(found)
    parts, counts = [], []
    for batch in pictures:
        parts.append(found.observe(batch, moments=True).moments)
        counts.append(len(batch))
    for mean, variance, running_mean, running_variance in joined_moments(parts, counts):
        running_mean.copy_(mean)  # the layer's own buffers
        running_variance.copy_(variance.clamp(min=0))
    _pass_on(found)
    return found


def _sharing_weights(teacher: Teacher) -> Teacher:
    """Return a copy of the teacher's modules that holds the same tensors and the same engine."""
    shared = [*teacher.parameters(), *teacher.buffers(), teacher.engine]
    return copy.deepcopy(teacher, {id(each): each for each in shared})


def _pass_on(teacher: Teacher) -> None:
    """Give the BatchNorms the scale and the shift with which they return what they are given in eval mode."""
    for norm in teacher.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.copy_(norm.running_mean)
