"""Options of the memory `reservoir` (torch-free)."""

from typing import Annotated, Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions
from dfkd_core.options.passes import Direction, Network, Passes, Rehearsal, passes

CHECK_AFTER = 1000  # images after which a memory judges whether 8 bits keep their classes


class ReservoirOptions(ReplayOptions):
    """Uniform sample of everything ever synthesized, class-balanced, 8-bit images with cached logits."""

    name: Literal["reservoir"] = Field("reservoir", exclude=True)
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = Field(10_000, description="Images kept, over all classes.")

    def run_passes(self, rehearsal: Rehearsal, offers: frozenset[str]) -> list[Passes]:
        """Return the labels of the first images as they are stored."""
        return storage_check(rehearsal)


def storage_check(rehearsal: Rehearsal) -> list[Passes]:
    """Return the teacher's passes that check the storage of the first images in 8 bits."""
    rounds = min(rehearsal.remembered, -(-CHECK_AFTER // max(1, rehearsal.fresh)))
    return [passes(Network.TEACHER, Direction.FORWARD, rehearsal.fresh, times=rounds)]
