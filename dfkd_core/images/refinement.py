"""Refinement: a few gradient steps move images towards random soft labels, within the valid pixel range.

Yin et al. optimise pixels against a frozen classifier: *Dreaming to Distill: Data-free Knowledge Transfer via
DeepInversion*, CVPR 2020, https://arxiv.org/abs/1912.08795. Their BatchNorm term is used if the teacher has statistics.
Here the images start from shapes instead of noise, and the few steps leave most of a shape unchanged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.networks import losses
from dfkd_core.networks.batchnorm import BatchNormStatistics
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.config import Refinement

TALLEST = 12.0  # the largest number that is added to the logit of one class of a soft label
SHIFT = 0.0625  # the largest move of an image before each forward, as a share of its side; no single pixel matters then


def soft_labels(count: int, num_classes: int, *, generator: torch.Generator) -> Tensor:
    """Draw probabilities (count, num_classes): softmax of normal logits, of which one is raised by U(0, TALLEST).

    The classes take turns in being raised.
    """
    logits = torch.randn((count, num_classes), generator=generator)
    first = int(torch.randint(num_classes, (), generator=generator))  # small batches must not always raise class 0
    raised = (torch.arange(count) + first) % num_classes
    logits[torch.arange(count), raised] += torch.rand(count, generator=generator) * TALLEST
    return logits.softmax(dim=1)


def refine(teacher: Teacher, images: Tensor, options: Refinement, *, generator: torch.Generator) -> Tensor:
    """Change images (N, C, H, W) by `options.steps` steps of Adam within the teacher's valid range.

    The returned images are detached.
    """
    space, device = teacher.input_space, images.device
    low, high = (bound.to(device) for bound in space.bounds())
    wanted = soft_labels(len(images), teacher.num_classes, generator=generator).to(device)
    levels = ((images - low) / (high - low)).detach().requires_grad_(True)  # in [0, 1], so one learning rate fits all
    optimizer = torch.optim.Adam([levels], lr=options.learning_rate)
    matches = options.bn_weight > 0 and "batchnorm" in teacher.offers
    with BatchNormStatistics(teacher.network) as statistics:
        for _ in range(options.steps):
            moved = _moved(torch.lerp(low, high, levels), generator)
            loss = F.cross_entropy(teacher(moved), wanted) + options.smoothness * losses.total_variation(levels)
            if matches:
                loss = loss + options.bn_weight * statistics.distance()
            (levels.grad,) = torch.autograd.grad(loss * len(images), [levels])  # independent of the number of images
            optimizer.step()
            levels.data.clamp_(0, 1)
    return torch.lerp(low, high, levels.detach())


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Roll all images by the same offsets, each at most SHIFT of the side; pixels wrap around the edges."""
    most = [round(side * SHIFT) for side in images.shape[2:]]
    rows, columns = (int(torch.randint(-limit, limit + 1, (), generator=generator)) for limit in most)
    return images.roll((rows, columns), dims=(2, 3))
