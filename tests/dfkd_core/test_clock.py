"""The clock: what is left is the units that are left, at what a unit has cost here."""

import pytest

from dfkd_core.clock import Clock

PREDICTED = {"load": 1.0, "synthesis": 10.0, "teaching": 20.0, "export": 2.0}


class Run:
    """A clock and what it is told: the units and the seconds of each phase."""

    def __init__(
        self,
        predicted: dict[str, float] = PREDICTED,
        *,
        before: dict[str, float] | None = None,
        limit_seconds: float | None = None,
    ) -> None:
        self.now = 0.0
        self.clock = Clock(predicted, now=lambda: self.now, limit_seconds=limit_seconds)
        self.now += 1.0
        self.clock.finish("load")
        self.clock.expect({"synthesis": 100, "teaching": 200})
        self.work, self.seconds = dict(before or {}), dict[str, float]()
        self.clock.take(self.work, self.seconds)

    def do(self, name: str, units: int, *, each: float) -> None:
        """Do so many units of a phase one by one, each in so many seconds."""
        for _ in range(units):
            self.spend(name, each)
            self.work[name] = self.work.get(name, 0) + 1
            self.clock.take(self.work, self.seconds)

    def spend(self, name: str, seconds: float) -> None:
        """Work on a unit that is not done yet."""
        self.now += seconds
        self.seconds[name] = self.seconds.get(name, 0) + seconds
        self.work.setdefault(name, 0)
        self.clock.take(self.work, self.seconds)


def test_nothing_is_said_of_the_end_before_anything_was_measured() -> None:
    run = Run()
    assert run.clock.eta_seconds is None
    run.spend("synthesis", 1.0)
    assert run.clock.eta_seconds is None
    run.do("synthesis", 1, each=1.0)
    assert run.clock.eta_seconds is not None


def test_a_phase_that_has_not_begun_is_corrected_by_those_that_have() -> None:
    """Units take four times what was predicted, so the updates will, too."""
    run = Run()
    run.do("synthesis", 100, each=0.4)
    assert run.clock.eta_seconds == pytest.approx(4 * 20 + 2, rel=0.1)


def test_the_end_follows_what_is_measured_whatever_was_predicted() -> None:
    run = Run({"load": 1.0, "synthesis": 1000.0, "teaching": 1.0})
    run.do("synthesis", 100, each=0.1)
    run.do("teaching", 100, each=2.0)
    assert run.clock.eta_seconds == pytest.approx(200, rel=0.05)


def test_phases_that_alternate_are_each_charged_their_own_time() -> None:
    run = Run()
    for _ in range(10):
        run.do("synthesis", 5, each=1.0)
        run.do("teaching", 10, each=0.1)
    assert run.clock.eta_seconds == pytest.approx(50 * 1.0 + 100 * 0.1 + 2, rel=0.1)


def test_slow_first_units_are_soon_forgotten() -> None:
    run = Run()
    run.do("synthesis", 1, each=3.0)
    run.do("synthesis", 59, each=0.1)
    run.do("teaching", 100, each=0.1)
    assert run.clock.eta_seconds == pytest.approx(40 * 0.1 + 100 * 0.1 + 2, rel=0.1)


def test_a_unit_that_is_being_done_shortens_what_is_left() -> None:
    run = Run()
    run.do("synthesis", 50, each=4.0)
    before = run.clock.eta_seconds
    run.spend("synthesis", 3.0)
    assert before is not None
    assert run.clock.eta_seconds == pytest.approx(before - 3.0, rel=0.01)


def test_the_last_phase_is_left_until_it_is_done() -> None:
    """The audit set is completed after the last update: that all updates are done says nothing of it."""
    run = Run(PREDICTED | {"audit": 30.0})
    run.clock.expect({"audit": 60})
    run.do("synthesis", 100, each=0.1)
    run.do("teaching", 200, each=0.1)
    assert run.clock.eta_seconds == pytest.approx(30 + 2, rel=0.15)


def test_a_run_that_knows_more_than_its_plan_is_believed() -> None:
    """A rare class makes the audit set take four times the images that were planned."""
    run = Run(PREDICTED | {"audit": 3.0})
    run.clock.expect({"audit": 60})
    run.do("synthesis", 100, each=0.1)
    run.do("teaching", 200, each=0.1)
    run.clock.take(run.work, run.seconds, {"audit": 240})
    assert run.clock.eta_seconds == pytest.approx(4 * 3 + 2, rel=0.15)


def test_the_fraction_counts_all_work_by_its_cost_and_never_falls() -> None:
    run = Run()
    fractions = []
    for done in range(100):
        run.do("synthesis", 1, each=0.2 if done < 50 else 0.05)
        fractions.append(run.clock.fraction)
    assert fractions == sorted(fractions)
    assert 0.1 < run.clock.fraction < 0.5
    run.do("teaching", 200, each=0.1)
    run.clock.finish_counted()
    run.now += 2.0
    run.clock.finish("export")
    assert run.clock.fraction == pytest.approx(1.0)


def test_units_of_an_earlier_attempt_are_done_but_not_measured() -> None:
    run = Run(before={"synthesis": 100, "teaching": 100})
    assert run.clock.eta_seconds is None
    run.do("teaching", 10, each=3.0)
    assert run.clock.eta_seconds == pytest.approx(90 * 3.0, rel=0.25)
    assert 0.3 < run.clock.fraction < 0.9


def test_a_time_limit_ends_the_phases_that_count_units() -> None:
    run = Run(limit_seconds=30.0)
    run.do("synthesis", 20, each=1.0)
    assert run.clock.eta_seconds == pytest.approx(30 - 1 - 20, rel=0.05)  # the first second read the teacher


def test_the_reserve_is_what_the_last_stages_take_at_the_measured_speed() -> None:
    run = Run()
    assert run.clock.reserve_seconds == pytest.approx(2.0)
    run.do("synthesis", 50, each=0.2)  # twice the prediction
    assert run.clock.reserve_seconds == pytest.approx(4.0, rel=0.1)


def test_a_phase_that_was_not_predicted_is_measured_all_the_same() -> None:
    run = Run()
    for _ in range(10):
        run.spend("surprise", 1.0)
        run.work["surprise"] += 1
        run.clock.take(run.work, run.seconds, {"surprise": 40})
    assert run.clock.eta_seconds == pytest.approx(30 + 32, rel=0.1)


def test_more_units_than_were_expected_leave_nothing_below_zero() -> None:
    run = Run()
    run.do("synthesis", 150, each=0.1)
    left = run.clock.eta_seconds
    assert left is not None
    assert left > 0
    assert run.clock.fraction <= 1
