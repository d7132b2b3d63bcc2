"""SSD-KD. Liu, Wang, Liu, Sun, Yao: Small Scale Data-Free Knowledge Distillation, CVPR 2024,
https://arxiv.org/abs/2406.07876.

A small pool serves as well as a large one if its images are hard and of all kinds: where the teacher is sure already,
and of classes that the pool has many of, an image counts less. No code was released; its two factors are known by their
form only. Its replay is the memory `priority`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.methods.parts.image_method import RedrawnMethod
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.ssd_kd import SsdKdOptions
from dfkd_core.rng import Streams


class SsdKd(RedrawnMethod[SsdKdOptions]):
    """A generator for every batch; cross-entropy weighed by difficulty and rarity."""

    def __init__(self, options: SsdKdOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        self._made = torch.zeros(teacher.num_classes, device=device)  # images so far, by the teacher's class

    def _target_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        classes = targets.argmax(dim=1)
        rarity = class_rarity(self._made, exponent=self._options.diversity)[classes]
        return inversion_losses.modulated_cross_entropy(logits, classes, rarity, focus=self._options.focus)

    def _finish(self, images: Tensor, targets: Tensor) -> None:
        super()._finish(images, targets)
        classes = self._teacher.label(images).argmax(dim=1)
        self._made = self._made + torch.bincount(classes, minlength=len(self._made))

    def restart(self) -> None:
        """Nothing was made yet."""
        super().restart()
        self._made = torch.zeros_like(self._made)

    def state(self) -> dict[str, Any]:
        """With what was made of each class."""
        return {**super().state(), "made": self._made}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with earlier images."""
        super().restore(state)
        self._made = state["made"].to(self._device).clone()


def class_rarity(made: Tensor, *, exponent: float) -> Tensor:
    """For each class (mean number made + 1) / (its number made + 1), to the power of `exponent`: (num_classes,)."""
    return ((made.mean() + 1) / (made + 1)) ** exponent
