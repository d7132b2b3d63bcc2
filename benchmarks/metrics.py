"""Metrics of an accuracy curve, with exact definitions of what papers often leave vague.

Accuracies are in percent. Over evaluations e = 1..E with accuracy A_e: mean, population standard deviation (`std`) and
variance in points, maximum, final, mean of the last ten, drawdown = max over e of (best so far − A_e), the share of
steps that fall by at most 0.2 points (`monotone_share`), and regret = maximum − final.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, pstdev, stdev

BURN_IN = 0.1
FALL_ALLOWED = 0.2


def curve_metrics(accuracies: Sequence[float]) -> dict[str, float]:
    """Return all metrics of one curve; `drawdown_after_burn_in` leaves out the first tenth."""
    burnt_in = accuracies[math.ceil(len(accuracies) * BURN_IN) :] or accuracies
    return {
        "mean": fmean(accuracies),
        "std": pstdev(accuracies),
        "variance": pstdev(accuracies) ** 2,
        "max": max(accuracies),
        "final": accuracies[-1],
        "last10": fmean(accuracies[-10:]),
        "drawdown": drawdown(accuracies),
        "drawdown_after_burn_in": drawdown(burnt_in),
        "monotone_share": monotone_share(accuracies),
        "regret": max(accuracies) - accuracies[-1],
    }


def drawdown(accuracies: Sequence[float]) -> float:
    """Largest fall below the best so far, in points."""
    best, worst = -math.inf, 0.0
    for accuracy in accuracies:
        best = max(best, accuracy)
        worst = max(worst, best - accuracy)
    return worst


def monotone_share(accuracies: Sequence[float]) -> float:
    """Share of evaluations after the first that fall by at most FALL_ALLOWED points; 1 for a single evaluation."""
    pairs = list(pairwise(accuracies))
    return fmean(after >= before - FALL_ALLOWED for before, after in pairs) if pairs else 1.0


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's correlation; ties get their mean rank. NaN where one side does not vary."""
    a, b = _ranks(first), _ranks(second)
    deviation = pstdev(a) * pstdev(b)
    if deviation == 0:
        return math.nan
    return (fmean(x * y for x, y in zip(a, b, strict=True)) - fmean(a) * fmean(b)) / deviation


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(other < value for other in values) + (list(values).count(value) - 1) / 2 for value in values]


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value); both NaN where a value is."""
    if any(math.isnan(value) for value in values):
        return math.nan, math.nan
    return fmean(values), stdev(values) if len(values) > 1 else 0.0
