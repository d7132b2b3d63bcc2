"""Speed: from work to seconds, on a machine that is described by a few measured rates.

A pass takes the time of its multiply-adds, plus that of the bytes that its layers read and write, plus a fixed time for
every call of a kernel. Drawing and augmenting images take a time for every pixel.
"""

from dataclasses import dataclass

from dfkd_core.options.passes import Direction, Network, Passes
from dfkd_core.planning.sizes import NetworkSize
from dfkd_core.planning.work import PhaseWork, Work
from dfkd_core.progress import Phase

MACS = {Direction.FORWARD: 1, Direction.TO_INPUT: 2, Direction.TO_WEIGHTS: 3}  # in units of a forward pass
TRAFFIC = {Direction.FORWARD: 2, Direction.TO_INPUT: 5, Direction.TO_WEIGHTS: 6}  # in units of all activations
CALLS = {Direction.FORWARD: 1, Direction.TO_INPUT: 2, Direction.TO_WEIGHTS: 3}  # in units of all layers
UPDATE_BYTES = 60  # that an update of Adam, clipping and the running average move for one parameter


@dataclass(frozen=True, slots=True)
class Speed:
    """The rates of a machine, with the threads that a run has there."""

    macs_per_second: float
    bytes_per_second: float
    seconds_per_call: float
    seconds_per_drawn_value: float  # of one channel of one pixel
    seconds_per_augmented_value: float
    seconds_per_run: float  # reading, verifying and exporting, beside what their passes take


def seconds_of(work: Work, speed: Speed) -> float:
    """Return the seconds of a whole run."""
    return sum(seconds_of_phase(each, work, speed) for each in work.phases)


def seconds_of_phase(phase: PhaseWork, work: Work, speed: Speed) -> float:
    """Return the seconds of one phase of `work`."""
    counted = [*phase.passes]
    if phase.compared:  # counts as one more forward of the student
        counted.append(Passes(Network.STUDENT, Direction.FORWARD, phase.compared, phase.units))
    passes = sum(seconds_of_passes(each, work.sizes[each.network], speed) for each in counted)
    values = phase.drawn * speed.seconds_per_drawn_value + phase.augmented * speed.seconds_per_augmented_value
    fixed = speed.seconds_per_run / 2 if phase.phase in (Phase.PREPARE, Phase.EXPORT) else 0.0
    return passes + values * work.pixels + fixed


def seconds_of_passes(passes: Passes, size: NetworkSize, speed: Speed) -> float:
    """Return the seconds of passes through a network of a size."""
    direction = passes.direction
    multiplying = passes.images * MACS[direction] * size.macs / speed.macs_per_second
    moved = passes.images * TRAFFIC[direction] * size.activation_bytes
    if direction == Direction.TO_WEIGHTS and passes.network in (Network.STUDENT, Network.GENERATOR):
        moved += passes.batches * UPDATE_BYTES * size.parameters
    calls = passes.batches * CALLS[direction] * size.operations
    return multiplying + moved / speed.bytes_per_second + calls * speed.seconds_per_call
