import pytest

from dfkd_core.loop.schedule import Schedule
from tests.dfkd_core.tiny import tiny_config


def schedule(**changes: object) -> Schedule:
    steadiness = {"consolidation": 0.2, "evaluations": 10}
    return Schedule.of(tiny_config(budget={"steps": 1000}, steadiness=steadiness, **changes))


def test_the_generator_is_frozen_for_the_last_share() -> None:
    assert not schedule().consolidates(799)
    assert schedule().consolidates(800)


def test_both_rates_fall_to_zero_the_generators_first() -> None:
    rates = schedule()
    assert rates.generator_rate(0) == 1
    assert rates.generator_rate(400) == pytest.approx(0.5)
    assert rates.generator_rate(800) == pytest.approx(0)
    assert rates.student_rate(500) == pytest.approx(0.5)
    assert rates.student_rate(1000) == pytest.approx(0)


def test_without_decay_the_students_rate_stays() -> None:
    assert schedule(training={"decay": "none"}).student_rate(900) == 1


def test_the_replay_share_grows_with_age() -> None:
    rates = schedule(training={"replay_share": 0.2, "final_replay_share": 0.6})
    assert rates.replay_share_at(0) == pytest.approx(0.2)
    assert rates.replay_share_at(500) == pytest.approx(0.4)
    assert rates.replay_share_at(1000) == pytest.approx(0.6)


def test_evaluations_happen_as_often_as_asked_whatever_the_round() -> None:
    due = [after for after in range(7, 1001, 7) if schedule().evaluates(after - 7, after)]
    assert len(due) in (9, 10)
    assert schedule().evaluates(994, 1000)


def test_the_students_rate_rises_before_it_falls() -> None:
    rates = schedule(training={"decay": "none", "rate_warmup": 0.1})
    assert rates.student_rate(0) == pytest.approx(0.01)
    assert rates.student_rate(49) == pytest.approx(0.5)
    assert rates.student_rate(99) == rates.student_rate(900) == 1
