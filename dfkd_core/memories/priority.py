"""Priority memory, the replay of SSD-KD. Liu, Wang, Liu, Sun, Yao: Small Scale Data-Free Knowledge Distillation, CVPR
2024, https://arxiv.org/abs/2406.07876; the scheme is that of Schaul, Quan, Antonoglou, Silver: Prioritized Experience
Replay, ICLR 2016, https://arxiv.org/abs/1511.05952.

An image is replayed with a probability that grows with the divergence of teacher and student at it.
"""

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.images.student_answers import answers
from dfkd_core.memories.reservoir import ReservoirMemory
from dfkd_core.networks.losses import disagreement
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.memories.priority import PriorityOptions
from dfkd_core.rng import Streams

LEAST = 1e-3  # nats: nothing is forgotten for good


class PriorityMemory(ReservoirMemory):
    """A reservoir with unequal odds, which follow the student from round to round."""

    def __init__(self, options: PriorityOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        self._exponent = options.exponent * (1 - options.correction)
        self._known = Batch(images=torch.zeros(0), teacher_logits=torch.zeros(0))
        self._odds = torch.zeros(0)

    def observe_student(self, student: nn.Module) -> None:
        """Ask the student about every image that is kept."""
        if not len(self._bank):
            return
        self._known = self._bank.all()
        divergence = disagreement("kl", self._known.teacher_logits, answers(student, self._known), temperature=1.0)
        self._odds = priorities(divergence, exponent=self._exponent)

    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """A draw from what was kept when the student was last asked, by priority and with replacement.

        Importance weights (N · P)^−correction would multiply each image's loss; drawing from P^(1 − correction) instead
        has the same expected gradient, and a batch of equal weights.
        """
        if not len(self._odds):
            return super().replay(count, generator=generator)
        chosen = torch.multinomial(self._odds, count, replacement=True, generator=generator)
        images, logits = self._known.images[chosen], self._known.teacher_logits[chosen]
        return Batch(images=images.to(self._device), teacher_logits=logits.to(self._device))


def priorities(divergence: Tensor, *, exponent: float) -> Tensor:
    """Chances (N,), summing to 1, that grow with the divergence (N,) to the power of `exponent`."""
    weights = divergence.clamp(min=LEAST) ** exponent
    return weights / weights.sum()
