"""PastStatistics: BatchNorm statistics of earlier batches, mixed into the statistics of a new batch.

With them, a new batch has to match the teacher's statistics only together with the earlier batches.

Fang et al., Up to 100x Faster Data-free Knowledge Distillation, AAAI 2022, https://arxiv.org/abs/2112.15253.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from dfkd_core.methods.parts.part import Part
from dfkd_core.networks.batchnorm import Moments


class PastStatistics(Part):
    """Keeps a running average of each layer's batch mean and variance; `share` is both its weight and its decay."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._past: list[list[Tensor]] = []
        self._latest: list[list[Tensor]] = []

    def blended(self, moments: Sequence[Moments]) -> list[Moments]:
        """Return `moments` with each batch mean and variance mixed with the past; without a past, unchanged."""
        self._latest = [[mean.detach(), variance.detach()] for mean, variance, _, _ in moments]
        if not self._past or not self._share:
            return list(moments)
        new, pairs = 1 - self._share, zip(moments, self._past, strict=True)
        return [
            (self._share * old_mean + new * mean, self._share * old_variance + new * variance, goal_mean, goal_variance)
            for (mean, variance, goal_mean, goal_variance), (old_mean, old_variance) in pairs
        ]

    def finish(self, images: Tensor, targets: Tensor) -> None:
        """Add the batch that was blended last to the past."""
        self.take_in()

    def take_in(self) -> None:
        """Add the moments that were blended last to the past."""
        if self._past and self._share:
            pairs = zip(self._past, self._latest, strict=True)
            self._past = [
                [self._share * old + (1 - self._share) * new for old, new in zip(*pair, strict=True)] for pair in pairs
            ]
        elif self._share:
            self._past = self._latest

    def restart(self) -> None:
        """Forget all earlier batches."""
        self._past, self._latest = [], []

    def state(self) -> dict[str, Any]:
        """Return the past moments of each layer, and those that were blended last."""
        return {"past": {"past": self._past, "latest": self._latest}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of earlier batches."""
        self._past, self._latest = ([list(layer) for layer in state["past"][key]] for key in ("past", "latest"))
