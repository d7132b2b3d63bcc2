"""The estimate of a teacher's input space: the usual convention that fits its file best.

A network with BatchNorm knows what it was trained on. Drawn pictures in [0, 1] are normalised by each usual convention,
and the statistics that the layers see are compared with their running ones. The convention with the smallest distance,
over conventions and kinds of pictures, is the estimate. Where no layer shows anything, what the whole network answers
to the pictures does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dfkd_core.input_estimate import Basis, Certainty, InputEstimate, Kind, ToldPixels
from dfkd_core.inspection.input_space.answers import fits_of_answers
from dfkd_core.inspection.input_space.conventions import (
    BYTES,
    TOLD,
    Convention,
    are_alike,
    conventions,
    described,
    without_evidence,
)
from dfkd_core.inspection.input_space.forward import NotComputable
from dfkd_core.inspection.input_space.graph_normalisation import pixels_of_graph
from dfkd_core.inspection.input_space.pictures import KINDS, in_bounds, pictures
from dfkd_core.inspection.input_space.statistics import (
    Expected,
    StatisticsReader,
    kept_by_norms,
    left_by_folding,
    reader_of,
)
from dfkd_core.onnx_import.ir.plan import Array, Plan
from dfkd_core.spec.teacher import InputSpec

TRIES = ((16, 3e10), (6, 3e10), (4, 4e10))
"""Pictures of each kind, and multiply-adds of all of them with what else they cost: one to three seconds of one core.
Fewer pictures are for networks whose first layer is costly; that of a ResNet-50 for 224 pixels takes four."""
LAYERS = 12  # the first ones, which tell the most about pixels
FEWEST_FOLDED = 4  # convolutions: fewer show nothing but chance
FOLDED_KINDS: tuple[Kind, ...] = ("strokes",)  # others can pretend to another convention where statistics are a guess
FAR = 2.0  # pictures whose statistics are farther away are not what the teacher was trained on, whatever their values
SURE, LIKELY, LIKELY_FOLDED = 1.3, 1.08, 1.3  # how many times the smallest distance the next one is
LEAD = 0.6  # of the convention that the answers fit best, where it is likely


@dataclass(frozen=True, slots=True)
class _Fit:
    """The smallest distance of a convention, and the kind of pictures that gives it."""

    distance: float
    kind: Kind


Fits = dict[Convention, _Fit]


def estimate_input(plan: Plan, told: InputSpec | None = None, *, folded: bool = False) -> InputEstimate:
    """Return the estimate for the network of a plan. What a caller told of its pixels is compared too.

    `folded`: BatchNorms may have been folded into the convolutions.
    """
    channels = plan.input_shape[0]
    if plan.interface.input_type == "uint8":
        return described(BYTES, "sure", "element-type")
    said = None if told is None or not told.is_range_known else Convention.of(told)
    if said is not None and not said.fits(channels):
        said = None
    kept, left = [*kept_by_norms(plan)], [*left_by_folding(plan)] if folded else []
    if len(left) < FEWEST_FOLDED:
        left = []
    basis: Basis = "batchnorm" if kept else "folded"
    try:
        fits = _fits(plan, kept or left, KINDS if kept else FOLDED_KINDS, said)
    except (NotComputable, MemoryError):
        fits = {}
    by_graph = pixels_of_graph(plan)
    if by_graph is not None:
        return _compared(by_graph, fits, channels, certainty="sure", basis="graph")
    if fits:
        best = min((one for one in fits if one is not said), key=lambda one: fits[one].distance)
        if basis == "batchnorm" or fits[best].distance <= FAR:
            return _compared(best, fits, channels, basis=basis)
    return _of_answers(plan, channels)


def _of_answers(plan: Plan, channels: int) -> InputEstimate:
    """Return the estimate for a network whose layers show nothing, by what it answers to drawn pictures."""
    fits = fits_of_answers(plan, [group[0] for group in _groups(conventions(channels), channels)])
    if not fits:
        return without_evidence(channels)
    best, following, *_ = sorted(fits, key=lambda one: -fits[one])
    certainty: Certainty = "likely" if fits[best] - fits[following] >= LEAD else "unknown"
    return described(best, certainty, "answers").model_copy(update={"next_convention": following.name})


def _compared(
    found: Convention, fits: Fits, channels: int, *, certainty: Certainty | None = None, basis: Basis
) -> InputEstimate:
    """Return the estimate with the distances of all conventions; `certainty` is judged by them unless it is known."""
    if found not in fits:
        return described(found, certainty or "unknown", basis)
    others = [group[0] for group in _groups(conventions(channels), channels) if found not in group]
    following = min(others, key=lambda one: fits[one].distance, default=None)
    ratio = 1.0 if following is None else fits[following].distance / max(fits[found].distance, 1e-9)
    judged = _certainty(fits[found].distance, ratio, basis)
    return described(found, certainty or judged, basis).model_copy(
        update={
            "distance": _rounded(fits[found].distance),
            "next_convention": None if following is None else following.name,
            "next_distance": None if following is None else _rounded(fits[following].distance),
            "pictures": fits[found].kind,
            "distances": {one.name: _rounded(fit.distance) for one, fit in fits.items() if one.name != TOLD},
            "told": next((_told(one, fit) for one, fit in fits.items() if one.name == TOLD), None),
        }
    )


def _told(said: Convention, fit: _Fit) -> ToldPixels:
    return ToldPixels(**said.values(), distance=_rounded(fit.distance))


def _certainty(distance: float, ratio: float, basis: Basis) -> Certainty:
    """Return how sure a distance makes, where the next one is `ratio` times as large."""
    if distance > FAR or ratio < (LIKELY_FOLDED if basis == "folded" else LIKELY):
        return "unknown"
    return "sure" if ratio >= SURE and basis != "folded" else "likely"


def _rounded(distance: float) -> float:
    return round(distance, 3)


def _fits(plan: Plan, expected: Sequence[Expected], kinds: Sequence[Kind], said: Convention | None) -> Fits:
    """Return the distance of every convention; nothing where no layer can be computed whose statistics are expected.

    Of conventions that give pixels nearly the same values one is tried, and the others only where it fits best.
    """
    channels = plan.input_shape[0]
    groups = _groups(conventions(channels), channels)
    first = [group[0] for group in groups] + ([] if said is None else [said])
    tried = len(first) + max(len(group) - 1 for group in groups)
    chosen = _reader(plan, expected, tries=tried * len(kinds))
    if chosen is None:
        return {}
    reader, count = chosen
    drawn = pictures(plan.input_shape, count, kinds)
    fits = {one: _best_fit(reader, one, drawn) for one in first}
    best = min((group[0] for group in groups), key=lambda one: fits[one].distance)
    alike = next(group for group in groups if group[0] is best)
    fits |= {one: _best_fit(reader, one, drawn) for one in alike[1:]}
    if kinds != KINDS:
        return fits
    figures = pictures(plan.input_shape, count, ["figures"])["figures"]
    return fits | {one: _or_figures(reader, one, fits[one], figures) for one in alike}


def _or_figures(reader: StatisticsReader, one: Convention, fit: _Fit, figures: Array) -> _Fit:
    """Return the fit with figures as its kind if those are nearer.

    Its distance stays, because conventions are compared on the other kinds alone.
    """
    nearer = _fit(reader, one, "figures", figures).distance < fit.distance
    return replace(fit, kind="figures") if nearer else fit


def _best_fit(reader: StatisticsReader, one: Convention, drawn: Mapping[Kind, Array]) -> _Fit:
    return min((_fit(reader, one, kind, images) for kind, images in drawn.items()), key=lambda fit: fit.distance)


def _fit(reader: StatisticsReader, one: Convention, kind: Kind, drawn: Array) -> _Fit:
    return _Fit(reader.distance(in_bounds(drawn, one.bounds(drawn.shape[1]))), kind)


def _groups(all_of_them: Sequence[Convention], channels: int) -> list[list[Convention]]:
    """Return the conventions in groups whose first member is like all others of the group."""
    groups: list[list[Convention]] = []
    for one in all_of_them:
        like = next((group for group in groups if are_alike(group[0], one, channels)), None)
        if like is None:
            groups.append([one])
        else:
            like.append(one)
    return groups


def _reader(plan: Plan, expected: Sequence[Expected], *, tries: int) -> tuple[StatisticsReader, int] | None:
    """Return the reader of as many layers, and the number of pictures of each kind, as may be paid for."""
    for count, total in TRIES:
        reader = reader_of(plan, expected, cost=total / (tries * count), layers=LAYERS)
        if reader is not None:
            return reader, count
    return None
