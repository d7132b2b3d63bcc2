"""Pulse: what work a run has done in each phase, what it took, and what is expected."""

import pytest

from dfkd_core.progress import Phase
from dfkd_core.pulse import Pulse


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pulse(time: Time) -> Pulse:
    return Pulse(now=time)


def work(pulse: Pulse, time: Time, phase: Phase, *, seconds: float, units: float) -> None:
    pulse.begin(phase)
    time.seconds += seconds
    pulse.did(units)


def test_phases_that_alternate_have_their_own_units_and_seconds(pulse: Pulse, time: Time) -> None:
    for _ in range(3):
        work(pulse, time, Phase.SYNTHESIS, seconds=2.0, units=64)
        work(pulse, time, Phase.STUDENT, seconds=0.5, units=1)
        work(pulse, time, Phase.STUDENT, seconds=0.5, units=1)
    assert pulse.work == {Phase.SYNTHESIS: 192, Phase.STUDENT: 6}
    assert pulse.seconds == pytest.approx({Phase.SYNTHESIS: 6.0, Phase.STUDENT: 3.0})


def test_time_before_the_first_and_after_the_last_piece_belongs_to_no_phase(pulse: Pulse, time: Time) -> None:
    time.seconds += 50.0
    work(pulse, time, Phase.AUDIT, seconds=1.0, units=5)
    pulse.end()
    time.seconds += 70.0
    assert pulse.seconds == pytest.approx({Phase.AUDIT: 1.0})
    work(pulse, time, Phase.AUDIT, seconds=2.0, units=5)
    assert pulse.seconds == pytest.approx({Phase.AUDIT: 3.0})


def test_a_resumed_run_has_the_units_of_all_attempts_and_the_seconds_of_this_one(pulse: Pulse, time: Time) -> None:
    work(pulse, time, Phase.STUDENT, seconds=5.0, units=10)
    resumed = Pulse(now=time)
    resumed.restore({Phase(name): units for name, units in pulse.state().items()})
    work(resumed, time, Phase.STUDENT, seconds=1.0, units=2)
    assert resumed.work == {Phase.STUDENT: 12}
    assert resumed.seconds == pytest.approx({Phase.STUDENT: 1.0})


def test_what_is_expected_is_counted_from_what_is_done(pulse: Pulse, time: Time) -> None:
    pulse.expect(Phase.AUDIT, 100)
    assert pulse.expected == {Phase.AUDIT: 100}
    work(pulse, time, Phase.AUDIT, seconds=1.0, units=40)
    pulse.expect(Phase.AUDIT, 90)
    assert pulse.expected == {Phase.AUDIT: 130}
