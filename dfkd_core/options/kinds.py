"""The kinds of procedural images: their names and costs. `dfkd_core.images.drawn` draws them; this is torch-free."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

KindName = Literal["shapes", "scenes", "marks", "figures"]

COSTS: Mapping[str, float] = {"shapes": 1.0, "scenes": 3.0, "marks": 5.0, "figures": 5.0}
"""About how long an image of each kind takes to draw, in times of a picture of shapes of the same size.

On one core of a Xeon, scenes took 2.8 times as long at 224 x 224 pixels and 3.8 times at 32 x 32, marks 2 and 14 times.
"""


def _differ(kinds: list[KindName]) -> list[KindName]:
    if len(set(kinds)) < len(kinds):
        raise ValueError("each kind can be named once")
    return kinds


Kinds = Annotated[list[KindName], Field(min_length=1, max_length=len(COSTS)), AfterValidator(_differ)]
KindsOrNone = Annotated[list[KindName], Field(max_length=len(COSTS)), AfterValidator(_differ)]


def mean_cost(kinds: Sequence[KindName]) -> float:
    """Return the mean cost of kinds that are equally likely, in times of shapes."""
    return sum(COSTS[kind] for kind in kinds) / len(kinds)
