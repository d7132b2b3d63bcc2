"""SSD-KD. Liu, Wang, Liu, Sun, Yao: Small Scale Data-Free Knowledge Distillation, CVPR 2024,
https://arxiv.org/abs/2406.07876.

A small pool of images is as good as a large pool if the images are hard and diverse. The loss therefore weighs an image
less if the teacher is already confident or if the pool has many images of its class. No code was released; the paper
gives only the form of the two factors. The replay of SSD-KD is the memory `priority`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod
from dfkd_core.methods.parts.image_starts import FreshGenerator
from dfkd_core.methods.parts.image_terms import Step, usual_terms
from dfkd_core.methods.parts.part import Part
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.ssd_kd import SsdKdOptions
from dfkd_core.rng import Streams


class SsdKd(ImageMethod):
    """Optimises a new generator for each batch; the cross-entropy is weighed by difficulty and rarity."""

    def __init__(self, options: SsdKdOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]
        made = ClassCounts(teacher, device=device)

        def modulated(step: Step) -> Tensor:
            """Return the cross-entropy, which weighs less if the teacher is confident or the class is common."""
            classes = step.targets.argmax(dim=1)  # (N,)
            rarity = class_rarity(made.counts, exponent=options.diversity)[classes]  # (N,)
            return inversion_losses.modulated_cross_entropy(step.logits, classes, rarity, focus=options.focus)

        super().__init__(
            options,
            teacher,
            start=FreshGenerator(options, teacher, draws=draws, device=device),
            targets=ClassTargets(teacher.num_classes, draws=draws, device=device),
            terms=usual_terms(options, target=modulated),
            past=PastStatistics(options.bn_past),
            parts=[made],
            draws=draws,
            device=device,
        )


class ClassCounts(Part):
    """Counts the images made so far by the teacher's class: `counts` is (num_classes,)."""

    def __init__(self, teacher: Teacher, *, device: torch.device) -> None:
        self._teacher = teacher
        self.counts = torch.zeros(teacher.num_classes, device=device)

    def finish(self, images: Tensor, targets: Tensor) -> None:
        """Count the new images."""
        classes = self._teacher.label(images).argmax(dim=1)
        self.counts = self.counts + torch.bincount(classes, minlength=len(self.counts))

    def restart(self) -> None:
        """Set all counts to 0."""
        self.counts = torch.zeros_like(self.counts)

    def state(self) -> dict[str, Any]:
        """Return the counts."""
        return {"made": self.counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of earlier counts."""
        self.counts = state["made"].to(self.counts.device).clone()


def class_rarity(made: Tensor, *, exponent: float) -> Tensor:
    """Return ((mean of `made` + 1) / (`made` + 1)) to the power of `exponent`; both are (num_classes,)."""
    return ((made.mean() + 1) / (made + 1)) ** exponent
