import math

import pytest

from benchmarks.metrics import curve_metrics, drawdown, mean_and_std, monotone_share, rank_correlation

CURVE = [10.0, 60.0, 50.0, 80.0, 79.9, 90.0, 85.0, 91.0, 91.0, 90.0]


def test_a_curve_by_hand() -> None:
    metrics = curve_metrics(CURVE)
    assert metrics["mean"] == pytest.approx(sum(CURVE) / 10)
    assert metrics["variance"] == pytest.approx(sum((a - sum(CURVE) / 10) ** 2 for a in CURVE) / 10)
    assert metrics["std"] == pytest.approx(math.sqrt(metrics["variance"]))
    assert (metrics["max"], metrics["final"], metrics["regret"]) == (91, 90, 1)
    assert metrics["last10"] == pytest.approx(metrics["mean"])
    assert metrics["drawdown"] == 10
    assert metrics["monotone_share"] == pytest.approx(6 / 9)


def test_the_first_tenth_does_not_count_after_burn_in() -> None:
    curve = [90.0, 50.0, *[95.0] * 18]
    assert curve_metrics(curve)["drawdown"] == 40
    assert curve_metrics(curve)["drawdown_after_burn_in"] == 0


def test_a_rising_curve_has_no_drawdown() -> None:
    assert drawdown([1, 2, 3]) == 0
    assert monotone_share([1, 2, 3]) == 1
    assert monotone_share([5]) == 1


def test_rank_correlation_sees_order_alone() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 5, 3]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 2, 3], [1, 2, 2, 3]) == pytest.approx(1)
    assert math.isnan(rank_correlation([1, 1], [1, 2]))


def test_spread_over_seeds_is_the_sample_deviation() -> None:
    assert mean_and_std([1, 2, 3]) == (2, 1)
    assert mean_and_std([5]) == (5, 0)
    assert all(math.isnan(value) for value in mean_and_std([1.0, math.nan]))
