"""Priority memory, the replay of SSD-KD. Liu, Wang, Liu, Sun, Yao: Small Scale Data-Free Knowledge Distillation, CVPR
2024, https://arxiv.org/abs/2406.07876. The scheme is prioritised replay: Schaul, Quan, Antonoglou, Silver: Prioritized
Experience Replay, ICLR 2016, https://arxiv.org/abs/1511.05952.

The probability of replaying an image grows with the divergence between teacher and student on that image.
"""

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import LabelledImages
from dfkd_core.images.student_answers import answers
from dfkd_core.memories.reservoir import ReservoirMemory
from dfkd_core.networks.losses import disagreement
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.memories.priority import PriorityOptions
from dfkd_core.rng import Streams

LEAST = 1e-3  # nats; the lower bound of a divergence, so that every image keeps a chance of replay


class PriorityMemory(ReservoirMemory):
    """A reservoir with unequal odds, which are computed anew from the student before each replay."""

    def __init__(self, options: PriorityOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        self._exponent = options.exponent * (1 - options.correction)
        self._odds = torch.zeros(0)

    def observe_student(self, student: nn.Module) -> None:
        """Compute the odds of all kept images from the current student's logits."""
        if not len(self._bank):
            return
        said = answers(student, self._bank, engine=self._teacher.engine)
        divergence = disagreement("kl", self._bank.teacher_logits, said, temperature=1.0)
        self._odds = priorities(divergence, exponent=self._exponent)

    def replay(self, count: int, *, generator: torch.Generator) -> LabelledImages | None:
        """Draw by priority, with replacement; call it after `observe_student`, before the memory takes in more images.

        The published importance weights (N · P)^−correction multiply each image's loss. Here images are drawn from
        P^(1 − correction) instead: the expected gradient is the same, and all images of a batch weigh the same.
        """
        if not len(self._odds):
            return super().replay(count, generator=generator)
        chosen = torch.multinomial(self._odds, count, replacement=True, generator=generator)
        return self._bank.take_stored(chosen, device=self._device)


def priorities(divergence: Tensor, *, exponent: float) -> Tensor:
    """Return probabilities (N,) in proportion to the divergence (N,) to the power of `exponent`."""
    weights = divergence.clamp(min=LEAST) ** exponent
    return weights / weights.sum()
