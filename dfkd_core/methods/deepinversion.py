"""DeepInversion. Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz: Dreaming to Distill: Data-free Knowledge
Transfer via DeepInversion, CVPR 2020, https://arxiv.org/abs/1912.08795.

Pixels are optimised until the teacher sees the class that was asked for, and its BatchNorms the statistics they saw in
training. With `adv_weight` it is the adaptive form: images on which the student disagrees are preferred.
"""

import torch
from torch import Tensor, nn

from dfkd_core.methods.parts.image_method import PixelMethod
from dfkd_core.networks import inversion_losses
from dfkd_core.options.methods.deepinversion import DeepInversionOptions


class DeepInversion(PixelMethod[DeepInversionOptions]):
    """Pixels with DeepInversion's loss."""

    def _targets(self, count: int) -> Tensor:
        """Classes; for a teacher without statistics to match, probabilities of every certainty."""
        soft = "batchnorm" not in self._teacher.offers
        if self._options.targets != "auto":
            soft = self._options.targets == "soft"
        return self._soft_targets(count) if soft else super()._targets(count)

    def _soft_targets(self, count: int) -> Tensor:
        """Softmax of normal logits (N, num_classes) of which one, each class's equally often, is raised at random."""
        classes = self._classes(count)
        logits = torch.randn((count, self._teacher.num_classes), generator=self._draws)
        lift = torch.rand((count, 1), generator=self._draws) * self._options.target_lift
        onehot = nn.functional.one_hot(classes, self._teacher.num_classes).float()
        return (logits.to(self._device) + lift.to(self._device) * onehot).softmax(dim=1)

    def _adversarial(self, images: Tensor, logits: Tensor, targets: Tensor, student: nn.Module) -> Tensor:
        """1 − JS(teacher, student), the published competition, up to a limit."""
        return inversion_losses.limited_js(logits, student(images), limit=self._options.adv_limit)
