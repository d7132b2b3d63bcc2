"""Schedule: values that depend only on the step count, never on time, so that a slow machine computes the same."""

import math
from dataclasses import dataclass

from dfkd_core.planning.rounds import consolidation_start, evaluation_interval
from dfkd_core.spec.config import DistillConfig


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning-rate factors, replay share and phases as functions of the student updates done."""

    total_steps: int
    rate_warmup_steps: int
    consolidation_starts: int
    evaluation_every: int
    decays: bool
    replay_share: float
    final_replay_share: float

    @staticmethod
    def of(config: DistillConfig) -> "Schedule":
        """Return the schedule of one run."""
        total, training = config.budget.steps, config.training
        return Schedule(
            total_steps=total,
            rate_warmup_steps=int(total * training.rate_warmup),
            consolidation_starts=consolidation_start(config),
            evaluation_every=evaluation_interval(config),
            decays=training.decay == "cosine",
            replay_share=training.replay_share,
            final_replay_share=training.final_replay_share,
        )

    def consolidates(self, step: int) -> bool:
        """Return whether the generator is frozen at `step`."""
        return step >= self.consolidation_starts

    def student_rate(self, step: int) -> float:
        """Factor of the student's learning rate: a linear rise from near 0, times a cosine to 0 over the whole run.

        Without the rise, rectifiers of a small student can die in the first steps and never recover.
        """
        rise = min(1.0, (step + 1) / max(1, self.rate_warmup_steps))
        return rise * (_cosine(step, self.total_steps) if self.decays else 1.0)

    def generator_rate(self, step: int) -> float:
        """Factor of the generator's learning rate: cosine to 0 at the start of the consolidation."""
        return _cosine(step, self.consolidation_starts)

    def replay_share_at(self, step: int) -> float:
        """Share of remembered images in a student batch, growing linearly with the age of the run."""
        return self.replay_share + (self.final_replay_share - self.replay_share) * step / self.total_steps

    def evaluates(self, before: int, after: int) -> bool:
        """Return whether an evaluation is due after the updates from `before` to `after`; it always is at the end."""
        crossed = before // self.evaluation_every != after // self.evaluation_every
        return crossed or after >= self.total_steps


def _cosine(step: int, total: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))
