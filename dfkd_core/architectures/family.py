"""The types with which a student family declares its architectures and options (torch-free)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dfkd_core.architectures.layers import Chain
from dfkd_core.errors import StudentError


@dataclass(frozen=True, slots=True)
class Fit:
    """The input, classes, width and options for which a network is built."""

    input_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    width: float = 1.0  # multiplies every hidden channel count
    options: Mapping[str, float] = field(default_factory=dict)

    def channels(self, count: int) -> int:
        """Return a hidden channel count scaled by the width."""
        return scaled(count, self.width)


def scaled(count: int, width: float) -> int:
    """Return a channel count times `width`, rounded half up, at least 1."""
    return max(1, math.floor(count * width + 0.5))


@dataclass(frozen=True, slots=True)
class Option:
    """A numeric option of a family, in [lowest, below)."""

    default: float
    lowest: float
    below: float
    description: str

    def check(self, value: object, *, name: str) -> float:
        """Return the value as a float.

        Raises:
            StudentError: the value is not a number or outside the range; `pointer` names the option.
        """
        pointer = f"/student/options/{name}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise StudentError(f"option {name} must be a number", pointer=pointer)
        if not self.lowest <= value < self.below:  # NaN fails too
            raise StudentError(f"option {name} must be in [{self.lowest:g}, {self.below:g})", pointer=pointer)
        return float(value)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture of the catalogue."""

    name: str
    family: str
    paper: str  # authors, title, venue
    form: str  # the published form that this architecture follows
    layers: Callable[[Fit], Chain]
    options: Mapping[str, Option] = field(default_factory=dict)
