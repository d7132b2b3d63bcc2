"""Clock: how much of a job is done and when it will end, from what its phases have cost so far (torch-free).

Each phase of the distillation counts its work in units of its own (images, updates, evaluations) and the seconds that
it has taken, so the clock knows what a unit of each phase costs here. What is left is the units that are left at these
costs. A phase that has not begun is taken at its predicted cost, corrected by the factor by which the phases that were
measured differ from their predictions. The stages around the distillation are phases of one unit each.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

TRUST_SHARE = 0.02  # of a phase's predicted seconds: once so much is measured, its own cost counts as much as that
RECENT_SHARE = 0.25  # of what was measured of a phase: a measurement that is so much older counts half
LEAST_RECENT_SECONDS, MOST_RECENT_SECONDS = 0.5, 120.0
MOST_UNMEASURED = 0.02  # of the job, that is said to be done before anything was measured
DOUBT_SECONDS = 0.2  # measured seconds after which predictions are corrected
MOST_CORRECTED = 3.0  # times their prediction, that stages are expected to take because other phases took longer


Name = TypeVar("Name", bound=str)  # of a phase


@dataclass(slots=True)
class _Phase:
    """One phase: its units in the whole job, how many are done, and what was measured of them."""

    predicted_seconds: float = 0.0  # of all `planned` units
    planned: float = 1.0
    total: float = 1.0
    done: float = 0.0
    counts: bool = False  # a phase of the distillation; others are stages, of one unit each
    heard: bool = False  # in this attempt
    units: float = 0.0  # measured, older ones count less
    seconds: float = 0.0  # of these units
    read: float = 0.0  # seconds of this phase that were taken in
    begun: float = 0.0  # of these, the seconds since the newest unit was done

    @property
    def predicted_cost(self) -> float:
        """Predicted seconds of one unit."""
        return self.predicted_seconds / self.planned if self.planned else 0.0

    def take(self, done: float, read: float) -> float:
        """Take in the units that are done and the seconds of them all; return the seconds that are new."""
        new, self.read = read - self.read, read
        self.begun += new
        units = done - self.done if self.heard else 0.0  # an attempt that resumes did not do the earlier units
        if units > 0:
            recent = min(MOST_RECENT_SECONDS, max(LEAST_RECENT_SECONDS, RECENT_SHARE * read))
            kept = 0.5 ** (self.begun / recent)
            self.seconds, self.units = kept * self.seconds + self.begun, kept * self.units + units
            self.begun = 0.0
        self.done, self.heard = max(self.done, done), True
        return new

    def cost(self, correction: float) -> float:
        """Return the seconds of one unit: measured, or predicted while little was measured."""
        expected = self.predicted_cost * (correction if self.counts else 1.0)
        if not self.units:
            return expected
        trust = self.read / (self.read + TRUST_SHARE * self.predicted_seconds)
        return trust * self.seconds / self.units + (1 - trust) * expected

    def left(self, correction: float) -> float:
        """Return the seconds that are left."""
        return max(0.0, max(0.0, self.total - self.done) * self.cost(correction) - self.begun)


class Clock:
    """Follows one attempt at a job. `predicted` has the seconds of each phase and of each stage of the job."""

    def __init__(
        self,
        predicted: Mapping[str, float],
        *,
        limit_seconds: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit_seconds` ends the phases that count units in time for the stages after them."""
        self._phases = {name: _Phase(predicted_seconds=seconds) for name, seconds in predicted.items()}
        self._limit_seconds = limit_seconds
        self._spent_seconds = 0.0
        self._now = now
        self._stage_began = now()
        self._heard = self._measured = False  # what earlier attempts did; a phase of the distillation
        self._fraction = 0.0

    def expect(self, totals: Mapping[str, float]) -> None:
        """Take over how many units each phase of the distillation has in the whole job, as it was planned."""
        for name, total in totals.items():
            phase = self._phases.setdefault(name, _Phase())
            phase.planned = phase.total = total
            phase.counts = True

    def finish(self, stage: str) -> None:
        """Record that a stage is over."""
        phase = self._phases.setdefault(stage, _Phase())
        began, self._stage_began = self._stage_began, self._now()
        phase.heard = True  # a stage belongs to one attempt
        self._spent_seconds += phase.take(phase.total, self._stage_began - began)

    def finish_counted(self) -> None:
        """Record that the distillation is over: nothing of its phases is left, even if the budget ended them early."""
        self._stage_began = self._now()
        for phase in self._phases.values():
            if phase.counts:
                phase.done, phase.heard, phase.begun = phase.total, True, 0.0

    def take(
        self, work: Mapping[Name, float], seconds: Mapping[Name, float], totals: Mapping[Name, float] | None = None
    ) -> None:
        """Take in the units of each phase that are done in the whole job, and the seconds spent in this attempt.

        The first call says what earlier attempts have done. `totals` are units of phases in all, where they differ from
        what was expected.
        """
        known = totals or {}
        for name in {**work, **known}:
            phase = self._phases.setdefault(str(name), _Phase(planned=0.0, total=0.0, heard=self._heard))
            phase.counts, done = True, work.get(name, 0.0)
            phase.total = max(known.get(name, phase.total), done)
            self._spent_seconds += phase.take(done, seconds.get(name, 0.0))
            self._measured = self._measured or phase.units > 0
        for phase in self._phases.values():
            phase.heard = True
        self._heard = True

    @property
    def reserve_seconds(self) -> float:
        """Seconds of the stages that are left, which come after the distillation, at the speed that was measured."""
        return min(MOST_CORRECTED, max(1.0, self._correction())) * self._left_by_kind(1.0)[False]

    @property
    def eta_seconds(self) -> float | None:
        """Seconds that are left; None until a phase of the distillation was measured."""
        return self._left(self._correction()) if self._measured else None

    @property
    def fraction(self) -> float:
        """Share of the job's time that is done; it never falls."""
        correction = self._correction()
        left = self._left(correction)
        done = sum(phase.done * phase.cost(correction) + phase.begun for phase in self._phases.values())
        if not self._measured:
            return min(done / (done + left), MOST_UNMEASURED) if done + left > 0 else 0.0
        if done + left > 0:
            self._fraction = max(self._fraction, min(1.0, done / (done + left)))
        return self._fraction

    def _left(self, correction: float) -> float:
        left = self._left_by_kind(correction)
        if self._limit_seconds is not None:
            left[True] = min(left[True], max(0.0, self._limit_seconds - self._spent_seconds - left[False]))
        return left[True] + left[False]

    def _left_by_kind(self, correction: float) -> dict[bool, float]:
        """Return the seconds that are left: False → of the stages, True → of the phases that count units."""
        left = {True: 0.0, False: 0.0}
        for phase in self._phases.values():
            left[phase.counts] += phase.left(correction)
        return left

    def _correction(self) -> float:
        """Return by which factor the measured phases of the distillation take longer than predicted."""
        known = [phase for phase in self._phases.values() if phase.counts and phase.predicted_cost > 0]
        predicted = sum(phase.units * phase.predicted_cost for phase in known)
        return (sum(phase.seconds for phase in known) + DOUBT_SECONDS) / (predicted + DOUBT_SECONDS)
