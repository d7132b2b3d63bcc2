"""The input space of a teacher, from the caller's `InputSpec`."""

from collections.abc import Sequence

from dfkd_core.networks.teacher import InputSpace
from dfkd_core.spec.config import InputSpec


def space_of(spec: InputSpec | None, shape: Sequence[int]) -> InputSpace:
    """Return the bounds of every channel of `shape` (C, H, W); without mean and std [-3, 3] and `range_known=False`."""
    channels, height, width = shape
    low, high = (spec or InputSpec(shape=list(shape))).pixel_bounds()
    known = spec is not None and spec.mean is not None
    return InputSpace((channels, height, width), tuple(low), tuple(high), known)


def warnings_of(spec: InputSpec | None, *, folded: bool) -> list[str]:
    """Return the codes of the warnings about the teacher's input range and its folded BatchNorms."""
    known = spec is not None and spec.mean is not None
    return (["teacher-batchnorm-folded"] if folded else []) + ([] if known else ["input-range-unknown"])
