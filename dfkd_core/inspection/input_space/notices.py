"""What is said of a teacher's pixel values: that they were assumed, or that what was told does not fit (torch-free)."""

from dfkd_core.input_estimate import InputEstimate
from dfkd_core.inspection.input_space.conventions import Convention, are_alike, conventions
from dfkd_core.notice import Notice
from dfkd_core.spec.teacher import InputSpec

DOUBTFUL = "input-space-doubtful"
TELL = "Give teacher.input.mean and teacher.input.std, or teacher.input.range, as in the teacher's own preprocessing"
MOST_STEPS = 1000.0
"""Standard deviations between the lowest and the highest pixel; more cannot be: bytes that are not divided have 255."""
DOUBTFUL_RATIO, DOUBTFUL_GAP = 1.4, 0.3
"""What was told is in doubt if its distance is that many times, and that much more than, that of the estimate."""


def input_notices(images: InputSpec, found: InputEstimate | None) -> list[Notice]:
    """Return the warnings about the pixel values of a resolved spec, given what the file shows."""
    if images.assumed is not None:
        return [_assumed(images, found)]
    doubt = _misfit(images) or (None if found is None else _doubt(images, found))
    return [] if doubt is None else [doubt]


def agrees(images: InputSpec, found: InputEstimate) -> bool:
    """Return whether a spec says of its pixels exactly what the estimate does."""
    return (images.mean, images.std, images.range) == (found.mean, found.std, found.range)


def _assumed(images: InputSpec, found: InputEstimate | None) -> Notice:
    values = _values(images.mean, images.std, images.range)
    if images.assumed == "unknown":
        return Notice(
            code="input-range-unknown",
            detail="Nobody said which pixel values the teacher was trained on, and its file does not tell for certain; "
            f"{values} is assumed.",
            hint=f"{TELL}.",
        )
    if found is None or not agrees(images, found):
        return Notice(
            code="input-space-estimated",
            detail="Nobody said which pixel values the teacher was trained on, and its file shows it; "
            f"{values} is assumed.",
            hint=f"{TELL}.",
        )
    why = {
        "graph": "its graph normalises its images itself",
        "batchnorm": f"its BatchNorm statistics fit {found.convention} best{_figures(found)}",
        "folded": f"its convolutions, with BatchNorms folded into them, fit {found.convention} best{_figures(found)}",
        "answers": f"what it answers to drawn pictures fits {found.convention} best (next is {found.next_convention})",
    }.get(found.basis, "its file shows it")
    return Notice(
        code="input-space-estimated",
        detail=f"Nobody said which pixel values the teacher was trained on; {values} is assumed, because {why}. "
        f"How sure that is: {images.assumed}.",
        hint=f"{TELL}, if that is not right.",
    )


def _misfit(images: InputSpec) -> Notice | None:
    """Return the warning that a mean or a standard deviation cannot be that of pixels in the range."""
    if images.mean is None or images.std is None:
        return None
    low, high = images.range or (0.0, 1.0)
    outside = not all(low <= mean <= high for mean in images.mean)
    if not outside and (high - low) / min(images.std) <= MOST_STEPS:
        return None
    what, values = ("mean", images.mean) if outside else ("std", images.std)
    of_bytes = outside and (low, high) == (0.0, 1.0) and all(0 <= mean <= 255 for mean in images.mean)
    return Notice(
        code=DOUBTFUL,
        detail=f"The {what} {_numbers(values)} cannot be that of pixels in [{low:g}, {high:g}]. What was said is used.",
        hint="These look like values of pixels from 0 to 255: give teacher.input.range [0, 255] too."
        if of_bytes
        else "teacher.input.mean and teacher.input.std are those of pixels in teacher.input.range, before anything is "
        "subtracted; [0, 1] where no range is given.",
    )


def _doubt(images: InputSpec, found: InputEstimate) -> Notice | None:
    """Return the warning that what was told fits the file clearly worse than the estimate does.

    What a network answers to drawn pictures is too little to doubt what was told.
    """
    if found.certainty == "unknown" or found.basis == "answers":
        return None
    if images.shape is None or not images.is_range_known:
        return None
    channels, told = images.shape[0], Convention.of(images)
    if are_alike(told, Convention.of(found), channels):
        return None
    if found.basis == "graph":
        evidence = "its graph normalises its images itself"
    else:
        distance = _distance(told, found, channels)
        assert found.distance is not None
        if distance is None or distance < max(DOUBTFUL_RATIO * found.distance, found.distance + DOUBTFUL_GAP):
            return None
        evidence = f"the statistics of its layers are {distance:g} away from those of such images, and "
        evidence += f"{found.distance:g} from those of {found.convention}"
    fitting = _values(found.mean, found.std, found.range)
    return Notice(
        code=DOUBTFUL,
        detail=f"What was said of the teacher's pixels does not seem to fit it: {evidence}.",
        hint=f"Check teacher.input: {fitting} fits better than {_values(images.mean, images.std, images.range)}. What "
        "was said is used.",
    )


def _distance(told: Convention, found: InputEstimate, channels: int) -> float | None:
    """Return the distance of what was told, or that of a convention like it; None if neither is known."""
    if found.told is not None and Convention.of(found.told).bounds(channels) == told.bounds(channels):
        return found.told.distance
    like = (one.name for one in conventions(channels) if are_alike(told, one, channels))
    return next((found.distances[name] for name in like if name in found.distances), None)


def _figures(found: InputEstimate) -> str:
    if found.distance is None or found.next_convention is None:
        return ""
    return f" (distance {found.distance:g}; next is {found.next_convention} with {found.next_distance:g})"


def _values(mean: list[float] | None, std: list[float] | None, bounds: list[float] | None) -> str:
    low, high = bounds or [0.0, 1.0]
    if mean is None or std is None:
        return f"range [{low:g}, {high:g}]"
    return f"mean {_numbers(mean)} and std {_numbers(std)} of pixels in [{low:g}, {high:g}]"


def _numbers(values: list[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
