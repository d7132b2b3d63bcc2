"""Passes: how many images go through a network, in how many batches, and whose gradient is computed (torch-free).

The options of a method and of a memory say with them what an update costs; `dfkd_core.planning` adds them up.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Network(StrEnum):
    """The networks of a run."""

    TEACHER = "teacher"
    STUDENT = "student"
    GENERATOR = "generator"  # of a method: persistent, or drawn anew for each batch
    ENCODER = "encoder"  # of a memory
    DECODER = "decoder"  # of a memory


class Direction(StrEnum):
    """What is computed of a network."""

    FORWARD = "forward"  # only the outputs
    TO_INPUT = "to-input"  # the outputs, and the gradient of the inputs
    TO_WEIGHTS = "to-weights"  # the outputs, and the gradient of the weights


@dataclass(frozen=True, slots=True)
class Passes:
    """Images through one network."""

    network: Network
    direction: Direction
    images: int
    batches: int

    def times(self, count: int) -> "Passes":
        """Return the same passes, `count` times."""
        return replace(self, images=count * self.images, batches=count * self.batches)


def passes(network: Network, direction: Direction, images: int, *, times: int = 1) -> Passes:
    """Return `times` batches of `images` each."""
    return Passes(network, direction, images * times, times)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How often a memory is asked in a run, and for how much."""

    remembered: int  # rounds whose fresh images it takes in
    fresh: int  # fresh images of such a round
    replays: int  # rounds in which it replays
    replayed: int  # images of a replay
    starts_empty: bool  # the first replay comes before anything was remembered
