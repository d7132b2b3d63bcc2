"""What a whole network answers to drawn pictures under each usual convention: for networks that have no BatchNorm.

Pixels on a scale that the network was not trained on give themselves away in its answers. On a smaller scale the
biases decide, so that all pictures have nearly the same answer, and no answer is certain. On a larger scale every
answer is certain. With another background the answers to all pictures share what the background adds.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfkd_core.input_estimate import Kind
from dfkd_core.inspection.input_space.conventions import Convention
from dfkd_core.inspection.input_space.forward import NotComputable, compute, is_computable, steps_towards
from dfkd_core.inspection.input_space.pictures import pictures
from dfkd_core.inspection.input_space.statistics import step_cost
from dfkd_core.onnx_import.ir.plan import Plan

COST = 3e10  # multiply-adds of all pictures, with what else they cost: one to three seconds of one core
COUNT, FEWEST = 24, 8  # pictures of each kind
USUAL_DOUBT = 0.17  # the entropy of an answer, where that of a guess is 1; a little less than trained networks have
LEAST_DOUBT, MOST_DOUBT = 0.04, 0.85  # of networks that have learnt, under the convention that they have learnt with
CLASSES, SPREAD = 2.0, 0.5  # how much the other two parts of a fit count
LARGE, LARGE_LEAD = 16.0, 0.25  # units that saturate answer to values as large as bytes as they do to their own
GUESS = 0.95  # doubt of answers that are hardly more than a guess
LEAST_FIT = 0.0
LEAST_GREY, LEAST_COLOUR = 1.0, 1.5
"""The same where all but large values have a guess as answer, as in a random network: those fit up to 0.6 and 1.2."""


def fits_of_answers(plan: Plan, candidates: Sequence[Convention]) -> dict[Convention, float]:
    """Return how well the answers of a network to drawn pictures fit each convention; more is better.

    Nothing is returned where they cannot be computed here, cost too much, or are those of a network that has not
    learnt.
    """
    channels = plan.input_shape[0]
    kinds: tuple[Kind, ...] = ("figures",) if channels == 1 else ("figures", "scenes")
    steps = steps_towards(plan, [plan.output_name])
    cost = max(1.0, sum(step_cost(plan, step) for step in steps)) * len(candidates) * len(kinds)
    count = min(COUNT, int(COST / cost))
    if count < FEWEST or not all(is_computable(step) for step in steps):
        return {}
    drawn = np.stack([*pictures(plan.input_shape, count, kinds).values()])  # (kinds, count, C, H, W)
    found: dict[Convention, list[tuple[float, float]]] = {}
    for one in candidates:
        low, high = (np.array(bound).reshape(1, 1, -1, 1, 1) for bound in one.bounds(channels))
        images = np.asarray(low + (high - low) * drawn, np.float32)
        try:
            answers = compute(plan, steps, images.reshape(-1, *plan.input_shape), [plan.output_name])
        except NotComputable:
            return {}
        logits = np.asarray(answers[plan.output_name], np.float64).reshape(len(kinds), count, -1)
        if not np.isfinite(logits).all():
            return {}
        found[one] = [_fit(of_kind) for of_kind in logits]
    fits = {one: float(np.mean([fit for fit, _ in parts])) - _lead(one, channels) for one, parts in found.items()}
    doubts = {one: float(np.mean([doubt for _, doubt in parts])) for one, parts in found.items()}
    best = max(fits, key=lambda one: fits[one])
    least = LEAST_FIT
    if all(doubts[one] >= GUESS for one in candidates if not _is_large(one, channels)):
        least = LEAST_GREY if channels == 1 else LEAST_COLOUR
    return fits if LEAST_DOUBT <= doubts[best] <= MOST_DOUBT and fits[best] >= least else {}


def _is_large(one: Convention, channels: int) -> bool:
    """Return whether pixels have values as large as bytes."""
    return max(map(abs, (*one.bounds(channels)[0], *one.bounds(channels)[1]))) > LARGE


def _lead(one: Convention, channels: int) -> float:
    """Return by how much a convention has to fit better than the others."""
    return LARGE_LEAD if _is_large(one, channels) else 0.0


def _fit(logits: NDArray[np.float64]) -> tuple[float, float]:
    """Return how well logits (N, classes) fit those of trained networks, and the mean doubt of an answer."""
    guess = math.log(logits.shape[1])
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    classes, doubt = (float(np.mean(_entropy(some))) / guess for some in (shares.mean(0), shares))
    spread = float(logits.var(0).mean()) / max(float(logits.mean(0).var()), 1e-12)
    return CLASSES * classes - abs(math.log((doubt + 1e-3) / USUAL_DOUBT)) + SPREAD * math.log(spread + 1e-12), doubt


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(shares * np.log(shares + 1e-12)).sum(-1))
