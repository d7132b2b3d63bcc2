"""The clock: what is left is the units that are left, at what a unit has cost here."""

import pytest

from dfkd_core.clock import Clock

PREDICTED = {"load": 1.0, "synthesis": 10.0, "teaching": 20.0, "export": 2.0}


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def run(clock: Clock, time: Time, name: str, *, until: int, total: int, seconds: float, first: int = 0) -> None:
    """Do the units of a phase one by one, each in so many seconds."""
    for done in range(first, until + 1):
        time.seconds += seconds if done > first else 0.0
        clock.count(name, done, total)


def started(predicted: dict[str, float] = PREDICTED, **options: float) -> tuple[Clock, Time]:
    time = Time()
    clock = Clock(predicted, now=time, **options)
    time.seconds += 1.0
    clock.finish("load")
    clock.expect({"synthesis": 100, "teaching": 200})
    return clock, time


def test_nothing_is_said_of_the_end_before_anything_was_measured() -> None:
    clock, time = started()
    assert clock.eta_seconds is None
    clock.count("synthesis", 0, 100)
    assert clock.eta_seconds is None
    time.seconds += 1.0
    clock.count("synthesis", 1, 100)
    assert clock.eta_seconds is not None


def test_a_phase_that_has_not_begun_is_corrected_by_those_that_have() -> None:
    """Units take four times what was predicted, so the updates will, too."""
    clock, time = started()
    run(clock, time, "synthesis", until=100, total=100, seconds=0.4)
    assert clock.eta_seconds == pytest.approx(4 * 20 + 2, rel=0.1)


def test_the_end_follows_what_is_measured_whatever_was_predicted() -> None:
    clock, time = started({"load": 1.0, "synthesis": 1000.0, "teaching": 1.0})
    run(clock, time, "synthesis", until=100, total=100, seconds=0.1)
    run(clock, time, "teaching", until=100, total=200, seconds=2.0)
    assert clock.eta_seconds == pytest.approx(200, rel=0.05)


def test_phases_that_alternate_are_each_charged_their_own_time() -> None:
    clock, time = started()
    for round_ in range(10):
        run(clock, time, "synthesis", first=round_ * 5, until=round_ * 5 + 5, total=100, seconds=1.0)
        run(clock, time, "teaching", first=round_ * 10, until=round_ * 10 + 10, total=200, seconds=0.1)
    assert clock.eta_seconds == pytest.approx(50 * 1.0 + 100 * 0.1 + 2, rel=0.1)


def test_the_fraction_counts_all_work_by_its_cost_and_never_falls() -> None:
    clock, time = started()
    fractions = []
    for done in range(101):
        clock.count("synthesis", done, 100)
        fractions.append(clock.fraction)
        time.seconds += 0.2 if done < 50 else 0.05
    assert fractions == sorted(fractions)
    assert 0.1 < clock.fraction < 0.5
    run(clock, time, "teaching", until=200, total=200, seconds=0.1)
    clock.finish_counted()
    clock.finish("export")
    assert clock.fraction == pytest.approx(1.0)


def test_units_of_an_earlier_attempt_are_done_but_not_measured() -> None:
    clock, time = started()
    clock.count("synthesis", 100, 100)
    clock.count("teaching", 100, 200)
    assert clock.eta_seconds is None
    run(clock, time, "teaching", first=100, until=110, total=200, seconds=3.0)
    assert clock.eta_seconds == pytest.approx(90 * 3.0, rel=0.25)
    assert 0.3 < clock.fraction < 0.9


def test_a_time_limit_ends_the_phases_that_count_units() -> None:
    clock, time = started(limit_seconds=30.0)
    run(clock, time, "synthesis", until=20, total=100, seconds=1.0)
    left = clock.eta_seconds
    assert left is not None
    assert left == pytest.approx(10 + 2, rel=0.05)  # the export comes after it


def test_a_phase_of_no_predicted_cost_is_measured_all_the_same() -> None:
    clock, time = started()
    run(clock, time, "surprise", until=10, total=40, seconds=1.0)
    assert clock.eta_seconds == pytest.approx(30 + 32, rel=0.2)


def test_more_units_than_were_expected_leave_nothing_below_zero() -> None:
    clock, time = started()
    run(clock, time, "synthesis", until=150, total=100, seconds=0.1)
    left = clock.eta_seconds
    assert left is not None
    assert left > 0
    assert clock.fraction <= 1
