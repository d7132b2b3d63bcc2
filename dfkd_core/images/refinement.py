"""Refinement: images take a few gradient steps towards soft labels drawn at random, within the valid pixel range.

Optimising pixels against a frozen classifier is Yin et al., *Dreaming to Distill: Data-free Knowledge Transfer via
DeepInversion*, CVPR 2020, https://arxiv.org/abs/1912.08795. Its BatchNorm term counts where the teacher has statistics.
Here the images start from shapes instead of noise, and the few steps leave most of a shape as it was.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.networks import losses
from dfkd_core.networks.batchnorm import BatchNormStatistics
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.config import Refinement

TALLEST = 12.0  # logits: one class of a soft label stands out by at most that much
SHIFT = 0.0625  # of the side: the largest move before the teacher looks, so that no single pixel matters


def soft_labels(count: int, num_classes: int, *, generator: torch.Generator) -> Tensor:
    """Probabilities (count, num_classes): softmax of normal logits, one class raised by U(0, TALLEST), each in turn."""
    logits = torch.randn((count, num_classes), generator=generator)
    first = int(torch.randint(num_classes, (), generator=generator))  # few images of many classes: others each time
    raised = (torch.arange(count) + first) % num_classes
    logits[torch.arange(count), raised] += torch.rand(count, generator=generator) * TALLEST
    return logits.softmax(dim=1)


def refine(teacher: Teacher, images: Tensor, options: Refinement, *, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) in the teacher's valid range, changed by `options.steps` steps of Adam; detached."""
    space, device = teacher.input_space, images.device
    low, high = (bound.to(device) for bound in space.bounds())
    wanted = soft_labels(len(images), teacher.num_classes, generator=generator).to(device)
    levels = ((images - low) / (high - low)).detach().requires_grad_(True)  # in [0, 1]: one learning rate fits all
    optimizer = torch.optim.Adam([levels], lr=options.learning_rate)
    matches = options.bn_weight > 0 and "batchnorm" in teacher.offers
    with BatchNormStatistics(teacher.network) as statistics:
        for _ in range(options.steps):
            moved = _moved(torch.lerp(low, high, levels), generator)
            loss = F.cross_entropy(teacher(moved), wanted) + options.smoothness * losses.total_variation(levels)
            if matches:
                loss = loss + options.bn_weight * statistics.distance()
            (levels.grad,) = torch.autograd.grad(loss * len(images), [levels])  # per image, whatever their number
            optimizer.step()
            levels.data.clamp_(0, 1)
    return torch.lerp(low, high, levels.detach())


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """All images moved alike by at most SHIFT of their sides; what leaves on one side comes in on the other."""
    most = [round(side * SHIFT) for side in images.shape[2:]]
    rows, columns = (int(torch.randint(-limit, limit + 1, (), generator=generator)) for limit in most)
    return images.roll((rows, columns), dims=(2, 3))
