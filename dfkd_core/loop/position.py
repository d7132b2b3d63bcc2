"""Position: where in its round a run is, so that a checkpoint can be written, and resumed, in the middle of a round."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from dfkd_core.progress import Phase
from dfkd_core.pulse import Pulse


class Position:
    """Counts the units that are done of each piece of the current round, and keeps the round's losses so far.

    A round is a fixed sequence of pieces. The functions of `round` ask `units` for the units that are left; of a piece
    that a resumed run has finished already, none are.
    """

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._losses: dict[str, Tensor] = {}
        self._done: dict[str, int] = {}

    def units(self, piece: str, count: int, *, phase: Phase | None = None) -> Iterator[int]:
        """Yield the numbers of the units of a piece that are left, out of `count`; a safe point follows each of them.

        With a `phase`, the work inside is counted there, by whoever does it.
        """
        for unit in range(self.done(piece), count):
            if phase is not None:
                self._pulse.begin(phase)
            yield unit
            self._done[piece] = unit + 1
            self._pulse.safe_point()

    def once(self, piece: str, *, phase: Phase | None = None) -> Iterator[int]:
        """Yield once, unless the piece is done already."""
        return self.units(piece, 1, phase=phase)

    def done(self, piece: str) -> int:
        """Return how many units of a piece are done."""
        return self._done.get(piece, 0)

    @property
    def between_rounds(self) -> bool:
        """True if no piece of the current round is done or in progress."""
        return not self._done

    def note(self, losses: Mapping[str, Tensor]) -> None:
        """Keep losses of this round by name."""
        self._losses |= losses

    @property
    def losses(self) -> dict[str, float]:
        """The losses of this round so far."""
        return {name: float(value) for name, value in self._losses.items()}

    def begin_round(self) -> None:
        """Forget what was done: all pieces are to be done again."""
        self._losses, self._done = {}, {}

    def state(self) -> dict[str, Any]:
        """Return the units done and the losses."""
        return {"done": dict(self._done), "losses": dict(self._losses)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier run."""
        self._done, self._losses = dict(state["done"]), dict(state["losses"])
