"""Counters: the progress of a run, and what the run has spent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Counters:
    """One object for the whole run: every part that makes or spends something adds to it."""

    rounds: int = 0  # all rounds, warm-up included
    warmup_rounds: int = 0  # warm-up rounds since the synthesizer started
    rounds_since_start: int = 0  # rounds since the synthesizer started, without its warm-up
    steps: int = 0  # student updates
    evaluated_steps: int = 0  # student updates at the last evaluation
    images_synthesized: int = 0
    teacher_images: int = 0  # images that went forward through the teacher
    rollbacks: int = 0
    rollbacks_in_a_row: int = 0
    elapsed_seconds: float = 0.0

    def start_synthesizer(self) -> None:
        """Count warm-up and roll-backs from zero, because a synthesizer with new weights starts."""
        self.warmup_rounds = self.rounds_since_start = self.rollbacks_in_a_row = 0

    def state(self) -> dict[str, Any]:
        """Return all counts by name."""
        return asdict(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of an earlier run, in place."""
        for name, value in state.items():
            setattr(self, name, value)
