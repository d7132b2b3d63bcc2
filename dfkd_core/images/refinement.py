"""Refinement: a few gradient steps move images towards random soft labels, within the valid pixel range.

Yin et al. optimise pixels against a frozen classifier: *Dreaming to Distill: Data-free Knowledge Transfer via
DeepInversion*, CVPR 2020, https://arxiv.org/abs/1912.08795. Their BatchNorm term is used if the teacher has statistics.
Here the images start from shapes instead of noise, and the few steps leave most of a shape unchanged.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.networks import losses
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


class Refining:
    """Images (N, C, H, W) in refinement: `options.steps` steps of Adam within the teacher's valid range."""

    def __init__(self, teacher: Teacher, images: Tensor, wanted: Tensor, options: Refinement) -> None:
        """`wanted` are the soft labels, (N, num_classes)."""
        self.wanted = wanted
        self.steps = 0  # done
        self._teacher = teacher
        self._options = options
        self._low, self._high = (bound.to(images.device) for bound in teacher.input_space.bounds())
        levels = (images - self._low) / (self._high - self._low)  # in [0, 1], so one learning rate fits all
        self._levels = levels.detach().requires_grad_(True)
        self._optimizer = torch.optim.Adam([self._levels], lr=options.learning_rate)
        self._matches_batchnorm = options.bn_weight > 0 and "batchnorm" in teacher.offers

    @staticmethod
    def begin(teacher: Teacher, images: Tensor, options: Refinement, *, generator: torch.Generator) -> "Refining":
        """Draw soft labels for the images."""
        wanted = soft_labels(len(images), teacher.num_classes, generator=generator)
        return Refining(teacher, images, wanted.to(images.device), options)

    def __len__(self) -> int:
        return len(self.wanted)

    @property
    def finished(self) -> bool:
        """True if all steps are done."""
        return self.steps >= self._options.steps

    def step(self, *, generator: torch.Generator) -> None:
        """Take one step."""
        options, levels = self._options, self._levels
        moved = _moved(torch.lerp(self._low, self._high, levels), generator)
        seen = self._teacher.observe(moved, moments=self._matches_batchnorm)
        loss = F.cross_entropy(seen.logits, self.wanted) + options.smoothness * losses.total_variation(levels)
        if self._matches_batchnorm:
            loss = loss + options.bn_weight * losses.batchnorm_distance(seen.moments)
        (levels.grad,) = torch.autograd.grad(loss * len(self), [levels])  # independent of the number of images
        self._optimizer.step()
        levels.data.clamp_(0, 1)
        self.steps += 1

    def images(self) -> Tensor:
        """Return the images as they are now, detached."""
        return torch.lerp(self._low, self._high, self._levels.detach())

    def state(self) -> dict[str, Any]:
        """Return the images as levels in [0, 1], their labels and the state of the optimiser."""
        optimizer = copy.deepcopy(self._optimizer.state_dict())
        return {"levels": self._levels.detach(), "wanted": self.wanted, "optimizer": optimizer, "steps": self.steps}

    @staticmethod
    def resume(teacher: Teacher, state: Mapping[str, Any], options: Refinement, *, device: torch.device) -> "Refining":
        """Continue from the `state` of an earlier refinement."""
        levels = state["levels"].to(device, copy=True)
        resumed = Refining(teacher, levels, state["wanted"].to(device), options)
        with torch.no_grad():
            resumed._levels.copy_(levels)
        resumed._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        resumed.steps = state["steps"]
        return resumed


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Roll all images by the same offsets, each at most SHIFT of the side; pixels wrap around the edges."""
    most = [round(side * SHIFT) for side in images.shape[2:]]
    rows, columns = (int(torch.randint(-limit, limit + 1, (), generator=generator)) for limit in most)
    return images.roll((rows, columns), dims=(2, 3))
