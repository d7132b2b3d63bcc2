"""Pulse (torch-free): whatever works for long tells through it that work goes on, and learns through it to stop.

A run changes its state in pieces: one step of an inversion, one student update, one chunk of drawn images. After each
piece comes a safe point, where the state can be saved and resumed exactly. Within a piece come beats, one after every
micro-batch: they are signs of life, and the piece can be abandoned there, because a piece changes the state only at its
end. An abandoned piece is done again when the run is resumed.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from dfkd_core.progress import Phase


class Interrupted(Exception):
    """The run has to stop here. Its state is that of the latest safe point, and it can be resumed from there."""


class Listener(Protocol):
    """Hears the beats of a run, and raises `Interrupted` where the run has to stop."""

    def on_beat(self, *, interruptible: bool) -> None:
        """Hear that a micro-batch is done, in the middle of a piece."""

    def on_safe_point(self) -> None:
        """Hear that a piece is done and the state is exact."""


class Pulse:
    """Counts the work of a run by phase, and passes beats and safe points on to the one listener, if there is one."""

    def __init__(self, listener: Listener | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.beats = 0
        self.phase: Phase | None = None  # of the newest piece
        self.work: dict[Phase, float] = {}  # the units done in each phase since the start of the run
        self.expected: dict[Phase, float] = {}  # the units of a phase in all, where the run knows more than its plan
        self._seconds: dict[Phase, float] = {}
        self._charged: Phase | None = None  # the phase whose seconds these are
        self._charged_at = 0.0
        self._now = now
        self._listener = listener
        self._holds = 0

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Pass everything on to `listener` until the context closes."""
        before, self._listener = self._listener, listener
        try:
            yield
        finally:
            self._listener = before

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let nothing interrupt the work inside the context, which is short and cannot be done twice."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def begin(self, phase: Phase) -> None:
        """Say what the next pieces belong to."""
        if phase is not self._charged:
            self._charge()
            self.phase = self._charged = phase
        self.work.setdefault(phase, 0.0)

    def end(self) -> None:
        """Say that the last piece is done; what follows belongs to no phase."""
        self._charge()
        self._charged = None

    @property
    def seconds(self) -> Mapping[Phase, float]:
        """The seconds that each phase has taken since this object heard of its first piece."""
        self._charge()
        return self._seconds

    def _charge(self) -> None:
        """Give the time since the last call to the present phase."""
        before, self._charged_at = self._charged_at, self._now()
        if self._charged is not None:
            self._seconds[self._charged] = self._seconds.get(self._charged, 0.0) + self._charged_at - before

    def expect(self, phase: Phase, units: float) -> None:
        """Say how many units of a phase are left, where that follows from what the run has seen."""
        self.expected[phase] = self.work.get(phase, 0.0) + units

    def did(self, units: float) -> None:
        """Count units of the current phase. It is the last change of a piece, right before its safe point."""
        if self.phase is not None:
            self.work[self.phase] += units

    def beat(self) -> None:
        """Tell that work goes on, in the middle of a piece."""
        self.beats += 1
        if self._listener is not None:
            self._listener.on_beat(interruptible=not self._holds)

    def safe_point(self) -> None:
        """Tell that a piece is done and the state is exact."""
        if self._holds:
            self.beat()
            return
        self.beats += 1
        if self._listener is not None:
            self._listener.on_safe_point()

    def state(self) -> dict[str, float]:
        """Return the units done in each phase."""
        return {str(phase): units for phase, units in self.work.items()}

    def restore(self, state: Mapping[Phase, float]) -> None:
        """Go on counting from the `state` of an earlier run."""
        self.work = dict(state)
