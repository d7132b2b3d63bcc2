"""The input space of a teacher, from what the caller said of it."""

from collections.abc import Sequence

from dfkd_core.networks.teacher import InputSpace
from dfkd_core.spec.config import InputSpec


def space_of(spec: InputSpec | None, shape: Sequence[int]) -> InputSpace:
    """Bounds of every channel; [-3, 3] and `range_known=False` where mean and std were not given."""
    channels, height, width = shape
    low, high = (spec or InputSpec(shape=list(shape))).pixel_bounds()
    known = spec is not None and spec.mean is not None
    return InputSpace((channels, height, width), tuple(low), tuple(high), known)


def warnings_of(spec: InputSpec | None, *, folded: bool) -> list[str]:
    """Codes of what the caller should know."""
    known = spec is not None and spec.mean is not None
    return (["teacher-batchnorm-folded"] if folded else []) + ([] if known else ["input-range-unknown"])
