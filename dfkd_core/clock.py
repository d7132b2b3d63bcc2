"""Clock: how much of a job is done and when it will end, from what its phases have cost so far (torch-free).

Each phase of a job counts its work in units of its own (images, updates, evaluations). The clock charges the time
between two reports to the phase of the later one, so it knows what a unit of each phase costs here. What is left is the
units that are left at these costs. A phase that has not begun is taken at its predicted cost, corrected by the factor
by which the phases that were measured differ from their predictions.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TRUST_SECONDS = 2.0  # measured seconds after which a phase's own cost counts as much as its predicted one
HALF_LIFE_SECONDS = 120.0  # measured seconds after which a measurement counts half
MOST_UNMEASURED = 0.02  # of the job, that is said to be done before anything was measured
DOUBT_SECONDS = 0.2  # measured seconds after which predictions are corrected
PACING = "teaching"
"""The phase whose share of done units stands for those of phases that have not reported."""


@dataclass(slots=True)
class _Phase:
    """One phase: its units in the whole job, how many are done, and what was measured of them."""

    predicted_seconds: float = 0.0  # of all units
    total: float = 1.0
    done: float = 0.0
    counts: bool = False  # a phase of the distillation; others are stages, of one unit each
    heard: bool = False  # in this attempt
    units: float = 0.0  # measured, older ones count less
    seconds: float = 0.0  # of these units

    @property
    def predicted_cost(self) -> float:
        """Predicted seconds of one unit."""
        return self.predicted_seconds / self.total if self.total else 0.0

    @property
    def share(self) -> float:
        """Share of the units that is done."""
        return self.done / self.total if self.total else 1.0

    def charge(self, seconds: float, units: float) -> None:
        """Add a measurement."""
        kept = 0.5 ** (seconds / HALF_LIFE_SECONDS)
        self.seconds, self.units = kept * self.seconds + seconds, kept * self.units + units

    def cost(self, correction: float) -> float:
        """Return the seconds of one unit: measured, or predicted while little was measured."""
        expected = self.predicted_cost * (correction if self.counts else 1.0)
        if not self.units:
            return expected
        trust = self.seconds / (self.seconds + TRUST_SECONDS) if expected else 1.0
        return trust * self.seconds / self.units + (1 - trust) * expected


class Clock:
    """Follows one attempt at a job. `predicted` has the seconds of each phase and of each stage of the job."""

    def __init__(
        self,
        predicted: Mapping[str, float],
        *,
        limit_seconds: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit_seconds` ends the phases that count units, however many are left."""
        self._phases = {name: _Phase(predicted_seconds=seconds) for name, seconds in predicted.items()}
        self._limit_seconds = limit_seconds
        self._spent_seconds = 0.0  # in phases that count units
        self._now = now
        self._charged_at = now()
        self._measured = False
        self._fraction = 0.0

    def expect(self, totals: Mapping[str, float]) -> None:
        """Take over how many units each phase of the distillation has in the whole job."""
        for name, total in totals.items():
            phase = self._phases.setdefault(name, _Phase())
            phase.total, phase.counts = total, True

    def finish(self, stage: str) -> None:
        """Record that a stage is over."""
        phase = self._phases.setdefault(stage, _Phase())
        self._charge(phase, phase.total - phase.done)
        phase.done = phase.total

    def finish_counted(self) -> None:
        """Record that the distillation is over: nothing of its phases is left, even if the budget ended them early."""
        self._charged_at = self._now()
        for phase in self._phases.values():
            if phase.counts:
                phase.done, phase.heard = phase.total, True

    def count(self, name: str, done: float, total: float = 0.0) -> None:
        """Record how many units of a phase are done in the whole job. A total of 0 is not known."""
        phase = self._phases.setdefault(name, _Phase())
        phase.counts, phase.total = True, max(total or phase.total, done)
        before = phase.done if phase.heard else done  # an attempt that resumes did not do the earlier units
        self._spent_seconds += self._charge(phase, max(0.0, done - before))
        self._measured = self._measured or done > before
        phase.done, phase.heard = max(done, phase.done), True

    def _charge(self, phase: _Phase, units: float) -> float:
        now = self._now()
        seconds, self._charged_at = now - self._charged_at, now
        phase.charge(seconds, units)
        return seconds

    @property
    def eta_seconds(self) -> float | None:
        """Seconds that are left; None until a phase of the distillation was measured."""
        return self._left(self._correction()) if self._measured else None

    @property
    def fraction(self) -> float:
        """Share of the job's time that is done; it never falls."""
        correction = self._correction()
        left = self._left(correction)
        done = sum(self._done(phase) * phase.cost(correction) for phase in self._phases.values())
        if not self._measured:
            return min(done / (done + left), MOST_UNMEASURED) if done + left > 0 else 0.0
        if done + left > 0:
            self._fraction = max(self._fraction, min(1.0, done / (done + left)))
        return self._fraction

    def _left(self, correction: float) -> float:
        left = {True: 0.0, False: 0.0}
        for phase in self._phases.values():
            left[phase.counts] += max(0.0, phase.total - self._done(phase)) * phase.cost(correction)
        if self._limit_seconds is not None:
            left[True] = min(left[True], max(0.0, self._limit_seconds - self._spent_seconds))
        return left[True] + left[False]

    def _done(self, phase: _Phase) -> float:
        """Return the units that are done. A phase that has counted none keeps pace with the student's updates."""
        pacing = self._phases.get(PACING)
        if phase.done or not phase.counts or pacing is None or not pacing.heard:
            return phase.done
        return max(phase.done, pacing.share * phase.total)

    def _correction(self) -> float:
        """Return by which factor the measured phases of the distillation take longer than predicted."""
        known = [phase for phase in self._phases.values() if phase.counts and phase.predicted_cost > 0]
        predicted = sum(phase.units * phase.predicted_cost for phase in known)
        return (sum(phase.seconds for phase in known) + DOUBT_SECONDS) / (predicted + DOUBT_SECONDS)
