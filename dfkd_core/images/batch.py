"""Batch: images with the teacher's logits, which all parts of the loop exchange."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Labelled(Protocol):
    """Images with the teacher's logits, of which only some need to be in memory at a time."""

    def __len__(self) -> int:
        """Return the number of images."""

    @property
    def teacher_logits(self) -> Tensor:
        """The logits of all images, (N, num_classes)."""

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in order, at most `size` at a time."""


class LabelledImages(Labelled, Protocol):
    """Images with the teacher's logits, all of which can be had at once."""

    @property
    def images(self) -> Tensor:
        """Return all images (N, C, H, W) as floats in the teacher's input space."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with the teacher's logits for them. All tensors are detached."""

    images: Tensor  # (N, C, H, W), float, in the teacher's input space
    teacher_logits: Tensor  # (N, num_classes)

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, chosen: slice | Tensor) -> "Batch":
        """Return the images, with their logits, that a slice, a mask (N,) or indices choose."""
        return Batch(images=self.images[chosen], teacher_logits=self.teacher_logits[chosen])

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in order, at most `size` at a time."""
        yield from torch.split(self.images, size)

    @staticmethod
    def join(*batches: "Batch | None") -> "Batch":
        """Concatenate the batches in order; None and empty batches are left out."""
        present = [batch for batch in batches if batch is not None and len(batch)]
        return Batch(
            images=torch.cat([batch.images for batch in present]),
            teacher_logits=torch.cat([batch.teacher_logits for batch in present]),
        )
