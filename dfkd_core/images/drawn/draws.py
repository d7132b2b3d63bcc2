"""Draws: the random numbers of which pictures are drawn, all from one seeded generator, on the CPU."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws tensors of any size from a generator."""

    generator: torch.Generator

    def uniform(self, low: float, high: float, *size: int) -> Tensor:
        """Draw numbers between two limits."""
        return low + (high - low) * torch.rand(size, generator=self.generator)

    def normal(self, *size: int) -> Tensor:
        """Draw normal numbers of mean 0 and variance 1."""
        return torch.randn(size, generator=self.generator)

    def chance(self, share: float | Tensor, *size: int) -> Tensor:
        """Draw truth values, of which `share` are true on average."""
        return torch.rand(size, generator=self.generator) < share

    def whole(self, most: int, *size: int) -> Tensor:
        """Draw whole numbers from 0 to less than `most`."""
        return torch.randint(most, size, generator=self.generator)
