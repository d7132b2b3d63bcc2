"""What a whole network answers to drawn pictures under each usual convention: for networks that have no BatchNorm.

Pixels on a scale that the network was not trained on give themselves away in its answers. On a smaller scale the
biases decide, so that all pictures have nearly the same answer, and no answer is certain. On a larger scale every
answer is certain. With another background the answers to all pictures share what the background adds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfkd_core.input_estimate import Kind
from dfkd_core.inspection.input_space.conventions import Convention
from dfkd_core.inspection.input_space.forward import NotComputable, compute, is_computable, steps_towards
from dfkd_core.inspection.input_space.pictures import in_bounds, pictures
from dfkd_core.inspection.input_space.statistics import step_cost
from dfkd_core.onnx_import.ir.plan import Array, Plan, Step

COST = 3e10  # multiply-adds of all pictures, with what else they cost: one to three seconds of one core
COUNT, FEWEST = 24, 8  # pictures of each kind
USUAL_DOUBT = 0.17  # the entropy of an answer, where that of a guess is 1; a little less than trained networks have
LEAST_DOUBT, MOST_DOUBT = 0.04, 0.85  # of networks that have learnt, under the convention that they have learnt with
CLASSES, SPREAD = 2.0, 0.5  # how much the other two parts of a fit count
LARGE = 16.0  # pixels have values as large as those of bytes
LARGE_LEAD = 0.25  # by how much they have to fit better: units that saturate answer to them as they do to their own
GUESS = 0.95  # doubt of answers that are hardly more than a guess
LEAST_FIT = 0.0  # of networks that have learnt
LEAST_GREY, LEAST_COLOUR = 1.0, 1.5
"""The least fit where all but large values have a guess as answer, as in random networks: those fit up to 0.6 and 1.2.
"""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a network answers under one convention: how well that fits trained networks, and the mean doubt of one."""

    fit: float
    doubt: float


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
    drawn = [*pictures(plan.input_shape, count, kinds).values()]
    try:
        found = {one: _answers(plan, steps, one, drawn) for one in candidates}
    except NotComputable:
        return {}
    large = [one for one in candidates if max(abs(value) for bound in one.bounds(channels) for value in bound) > LARGE]
    fits = {one: answers.fit - LARGE_LEAD * (one in large) for one, answers in found.items()}
    best = max(fits, key=lambda one: fits[one])
    least = LEAST_FIT
    if all(found[one].doubt >= GUESS for one in candidates if one not in large):
        least = LEAST_GREY if channels == 1 else LEAST_COLOUR
    return fits if LEAST_DOUBT <= found[best].doubt <= MOST_DOUBT and fits[best] >= least else {}


def _answers(plan: Plan, steps: Sequence[Step], one: Convention, drawn: Sequence[Array]) -> _Answers:
    """Return the mean over kinds of pictures, each (N, C, H, W), of what the network answers under a convention.

    Raises:
        NotComputable: a step has no implementation, or the logits are not finite.
    """
    parts = []
    for of_kind in drawn:
        seen = compute(plan, steps, in_bounds(of_kind, one.bounds(of_kind.shape[1])), [plan.output_name])
        logits = np.asarray(seen[plan.output_name], np.float64).reshape(len(of_kind), -1)
        if not np.isfinite(logits).all():
            raise NotComputable("logits that are not finite")
        parts.append(_fit_and_doubt(logits))
    fit, doubt = np.mean(parts, axis=0)
    return _Answers(float(fit), float(doubt))


def _fit_and_doubt(logits: NDArray[np.float64]) -> tuple[float, float]:
    """Return how well logits (N, classes) fit those of trained networks, and the mean doubt of an answer."""
    guess = math.log(logits.shape[1])
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    classes, doubt = (float(np.mean(_entropy(some))) / guess for some in (shares.mean(0), shares))
    spread = float(logits.var(0).mean()) / max(float(logits.mean(0).var()), 1e-12)
    return CLASSES * classes - abs(math.log((doubt + 1e-3) / USUAL_DOUBT)) + SPREAD * math.log(spread + 1e-12), doubt


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(shares * np.log(shares + 1e-12)).sum(-1))
