"""CollapseGuard: notices that a synthesizer produces only one image or only one class."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch

FORGET = 0.999  # decay of the healthy diversity at each check
PATIENCE = 3  # number of checks in a row that must look collapsed


class CollapseGuard:
    """Checks two signs of each batch: the entropy of the mean class distribution, and the mean distance of images.

    The scale of the distance depends on the images. The guard therefore compares the distance with the largest distance
    so far, which decays slowly.
    """

    def __init__(self, *, min_class_entropy: float, min_diversity: float) -> None:
        self._min_class_entropy = min_class_entropy
        self._min_diversity = min_diversity
        self._healthy_diversity = 0.0
        self._bad_checks = 0

    def check(self, batch: Batch) -> str | None:
        """Return the reason if the last PATIENCE batches all look collapsed, and None otherwise."""
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
        """True if the latest batch did not look collapsed."""
        return self._bad_checks == 0

    def state(self) -> dict[str, Any]:
        """Return the healthy diversity and the number of bad checks."""
        return {"healthy_diversity": self._healthy_diversity, "bad_checks": self._bad_checks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier guard."""
        self._healthy_diversity = state["healthy_diversity"]
        self._bad_checks = state["bad_checks"]


@torch.no_grad()
def diversity(images: Tensor) -> float:
    """Return the mean absolute difference between each image and the next; the last is compared with the first."""
    return float((images - images.roll(1, dims=0)).abs().mean())


@torch.no_grad()
def class_entropy(teacher_logits: Tensor) -> float:
    """Return the entropy of the mean softmax divided by ln(num_classes): 1 if balanced, 0 for a single class."""
    mean = teacher_logits.softmax(dim=1).mean(dim=0)
    return float(torch.special.entr(mean).sum()) / math.log(teacher_logits.shape[1])
