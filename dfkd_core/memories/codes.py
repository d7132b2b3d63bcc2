"""CodePrior: the distribution of a VAE's codes, one diagonal Gaussian for each class of the teacher.

A VAE with a small KLD weight does not spread its codes like N(0, I), and its decoder has not learnt codes from N(0, I).
The Gaussians are fitted to the codes of each update.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FORGET = 0.99  # decay of a class's moments at each update in which the class occurs; the encoder's codes drift
LEAST_VARIANCE = 1e-6


class CodePrior:
    """Running mean and variance of the codes of each class, and how often each class occurred."""

    def __init__(self, num_classes: int, latent_dim: int) -> None:
        self._mean = torch.zeros((num_classes, latent_dim))
        self._square = torch.ones((num_classes, latent_dim))
        self._updates = torch.zeros(num_classes)

    def observe(self, codes: Tensor, classes: Tensor) -> None:
        """Update the moments of each class with `codes` (N, latent_dim); `classes` (N,) are the teacher's."""
        codes, classes = codes.cpu(), classes.cpu()
        counts = torch.bincount(classes, minlength=len(self._updates)).float()
        present = counts > 0
        sums = torch.zeros_like(self._mean).index_add_(0, classes, codes)
        squares = torch.zeros_like(self._square).index_add_(0, classes, codes.square())
        divisor = counts.clamp(min=1).unsqueeze(1)
        decay = torch.minimum(torch.tensor(FORGET), self._updates / (self._updates + 1)).unsqueeze(1)
        decay = torch.where(present.unsqueeze(1), decay, torch.ones(()))
        self._mean = decay * self._mean + (1 - decay) * sums / divisor
        self._square = decay * self._square + (1 - decay) * squares / divisor
        self._updates = self._updates + present

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Draw codes (count, latent_dim) from the observed classes with equal chances, or from N(0, I) without any."""
        seen = self._updates.nonzero().flatten()
        noise = torch.randn((count, self._mean.shape[1]), generator=generator)
        if not len(seen):
            return noise
        classes = seen[torch.randint(len(seen), (count,), generator=generator)]
        deviation = (self._square - self._mean.square()).clamp(min=LEAST_VARIANCE).sqrt()
        return self._mean[classes] + noise * deviation[classes]

    @property
    def num_bytes(self) -> int:
        """Bytes of the moments and counters."""
        return sum(value.numel() * value.element_size() for value in (self._mean, self._square, self._updates))

    def state(self) -> dict[str, Any]:
        """Return the moments and the number of updates of each class."""
        return {"mean": self._mean, "square": self._square, "updates": self._updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier prior."""
        self._mean, self._square, self._updates = (state[key].clone() for key in ("mean", "square", "updates"))
