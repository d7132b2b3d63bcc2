"""Options of the memory `priority` (torch-free)."""

from typing import Annotated, Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions
from dfkd_core.options.field_types import Fraction
from dfkd_core.options.memories.reservoir import storage_check
from dfkd_core.options.passes import Direction, Network, Passes, Rehearsal


class PriorityOptions(ReplayOptions):
    """A small bank of images. Images that the student has not learnt yet are replayed more often."""

    name: Literal["priority"] = Field("priority", exclude=True)
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = Field(5000, description="Images kept, over all classes.")
    exponent: Fraction = Field(
        0.6, description="Exponent of the divergence of teacher and student in an image's priority; 0: all alike."
    )
    correction: Fraction = Field(
        0.4, description="Exponent of the importance weights; 1: they undo the priorities altogether."
    )

    def run_passes(self, rehearsal: Rehearsal, offers: frozenset[str]) -> list[Passes]:
        """Return the storage check of a reservoir, and the student's answers on all kept images before each replay."""
        fresh, before = max(1, rehearsal.fresh), rehearsal.remembered - rehearsal.replays  # rounds without a replay
        filling = max(0, min(rehearsal.replays, -(-self.capacity // fresh) - before))
        kept = fresh * (filling * before + filling * (filling - 1) // 2) + (rehearsal.replays - filling) * self.capacity
        return [*storage_check(rehearsal), Passes(Network.STUDENT, Direction.FORWARD, kept, rehearsal.replays)]
