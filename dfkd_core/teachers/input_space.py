"""The input space of a teacher, from the caller's `InputSpec` and the file's interface."""

from collections.abc import Sequence

from dfkd_core.interface import TeacherInterface
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.spec.teacher import InputSpec

LARGEST = 10.0  # networks train badly on larger values, so raw pixels are scaled to [-1, 1] for them


def space_of(spec: InputSpec | None, shape: Sequence[int], interface: TeacherInterface) -> InputSpace:
    """Return the bounds of every channel of `shape` (C, H, W); without mean and std [-3, 3] and `range_known=False`.

    Whole pixels have the range of the spec, [0, 255] where it is silent.
    """
    channels, height, width = shape
    whole = interface.input_type == "uint8"
    low, high = (spec or InputSpec()).pixel_bounds(channels, whole=whole)
    known = whole or (spec is not None and spec.is_range_known)
    offset, scale = 0.0, 1.0
    if max(*map(abs, low), *map(abs, high)) > LARGEST:
        offset, scale = (min(low) + max(high)) / 2, (max(high) - min(low)) / 2
    return InputSpace(
        (channels, height, width),
        tuple((value - offset) / scale for value in low),
        tuple((value - offset) / scale for value in high),
        known,
        offset=offset,
        scale=scale,
        whole=whole,
    )


def warnings_of(space: InputSpace, *, folded: bool) -> list[str]:
    """Return the codes of the warnings about the teacher's input range and its folded BatchNorms."""
    return (["teacher-batchnorm-folded"] if folded else []) + ([] if space.range_known else ["input-range-unknown"])
