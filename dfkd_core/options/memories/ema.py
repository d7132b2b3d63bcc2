"""Options of the memory `ema` (torch-free)."""

from typing import ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions
from dfkd_core.options.field_types import Fraction
from dfkd_core.options.passes import Direction, Network, Passes, Rehearsal, passes


class EmaOptions(ReplayOptions):
    """An exponential moving average of the generator (MAD, Do et al., NeurIPS 2022); nothing is stored or trained."""

    needs_of_method: ClassVar[frozenset[str]] = frozenset({"generator"})

    name: Literal["ema"] = Field("ema", exclude=True)
    decay: Fraction = Field(
        0.95, description="Decay of the average per update of the generator. 0: the generator itself; 1: the first one."
    )

    def run_passes(self, rehearsal: Rehearsal, offers: frozenset[str]) -> list[Passes]:
        """Return the passes of the replays: the average makes the images, the teacher labels them."""
        return [
            passes(network, Direction.FORWARD, rehearsal.replayed, times=rehearsal.replays)
            for network in (Network.GENERATOR, Network.TEACHER)
        ]
