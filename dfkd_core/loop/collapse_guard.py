"""CollapseGuard: notices when a synthesizer produces one image or one class only."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch

FORGET = 0.999  # per check, of the healthy diversity
PATIENCE = 3  # checks in a row that must look collapsed


class CollapseGuard:
    """Two signs per batch: entropy of the mean class distribution, and mean distance between images.

    The distance is compared with the largest seen so far (slowly forgotten), because its scale is the data's.
    """

    def __init__(self, *, min_class_entropy: float, min_diversity: float) -> None:
        self._min_class_entropy = min_class_entropy
        self._min_diversity = min_diversity
        self._healthy_diversity = 0.0
        self._bad_checks = 0

    def check(self, batch: Batch) -> str | None:
        """The reason, once PATIENCE batches in a row look collapsed; None otherwise."""
        reason = self._reason(batch)
        self._bad_checks = self._bad_checks + 1 if reason else 0
        return reason if self._bad_checks >= PATIENCE else None

    def _reason(self, batch: Batch) -> str | None:
        spread = diversity(batch.images)
        self._healthy_diversity = max(spread, FORGET * self._healthy_diversity)
        entropy = class_entropy(batch.teacher_logits)
        if entropy < self._min_class_entropy:
            return f"class entropy of a batch fell to {entropy:.3f} of its maximum"
        if spread < self._min_diversity * self._healthy_diversity:
            return f"distance between images fell to {spread / self._healthy_diversity:.3f} of what it was"
        return None

    @property
    def healthy(self) -> bool:
        """Whether the latest batch looked sound."""
        return self._bad_checks == 0

    def state(self) -> dict[str, Any]:
        """Numbers only."""
        return {"healthy_diversity": self._healthy_diversity, "bad_checks": self._bad_checks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue an earlier guard."""
        self._healthy_diversity = state["healthy_diversity"]
        self._bad_checks = state["bad_checks"]


@torch.no_grad()
def diversity(images: Tensor) -> float:
    """Mean absolute difference between each image and the next of the batch, around."""
    return float((images - images.roll(1, dims=0)).abs().mean())


@torch.no_grad()
def class_entropy(teacher_logits: Tensor) -> float:
    """Entropy of the mean softmax, divided by its maximum ln(num_classes): 1 is balanced, 0 a single class."""
    mean = teacher_logits.softmax(dim=1).mean(dim=0)
    return float(torch.special.entr(mean).sum()) / math.log(teacher_logits.shape[1])
