"""What a student family says of itself (torch-free): its architectures, its options, and how widths are rounded."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dfkd_core.architectures.layers import Chain
from dfkd_core.errors import StudentError


@dataclass(frozen=True, slots=True)
class Fit:
    """What a network is sized for."""

    input_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    width: float = 1.0  # multiplies every hidden channel count
    options: Mapping[str, float] = field(default_factory=dict)

    def channels(self, count: int) -> int:
        """A hidden channel count at this width."""
        return scaled(count, self.width)


def scaled(count: int, width: float) -> int:
    """A channel count times `width`, rounded half up, at least 1."""
    return max(1, math.floor(count * width + 0.5))


@dataclass(frozen=True, slots=True)
class Option:
    """A number that a family lets the caller choose, in [lowest, below)."""

    default: float
    lowest: float
    below: float
    description: str

    def check(self, value: object, *, name: str) -> float:
        """The value as a float; StudentError naming the option otherwise."""
        pointer = f"/student/options/{name}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise StudentError(f"option {name} must be a number", pointer=pointer)
        if not self.lowest <= value < self.below:  # NaN fails too
            raise StudentError(f"option {name} must be in [{self.lowest:g}, {self.below:g})", pointer=pointer)
        return float(value)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One name of the catalogue."""

    name: str
    family: str
    paper: str  # authors, title, where
    form: str  # one sentence: which of the published forms this is
    layers: Callable[[Fit], Chain]
    options: Mapping[str, Option] = field(default_factory=dict)
