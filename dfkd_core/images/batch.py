"""Batch: the one thing that travels round the loop."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with what the teacher says of them. Everything is detached."""

    images: Tensor  # (N, C, H, W), float, in the teacher's input space
    teacher_logits: Tensor  # (N, num_classes)

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, chosen: slice | Tensor) -> "Batch":
        """The images of a slice, of a mask (N,) or of indices, with their logits."""
        return Batch(images=self.images[chosen], teacher_logits=self.teacher_logits[chosen])

    @staticmethod
    def join(*batches: "Batch | None") -> "Batch":
        """All given batches behind one another; absent ones are left out."""
        present = [batch for batch in batches if batch is not None and len(batch)]
        return Batch(
            images=torch.cat([batch.images for batch in present]),
            teacher_logits=torch.cat([batch.teacher_logits for batch in present]),
        )
