"""Figures of a narrowed teacher, from what its inspection keeps: parameters, multiply-adds, bytes (pure Python).

`Narrowing` says how the sizes of a network follow from how many channels of each group stay. It is part of an
inspection, so the service and the planner know any narrower copy without the file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dfkd_core.architectures.family import scaled
from dfkd_core.errors import StudentError

BISECTIONS = 12  # steps of the search for the width that gives a number of parameters

Measure = Literal["parameters", "statistics", "macs", "activations"]


class LayerChannels(BaseModel):
    """A layer with weights, and its output channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: list[int] = Field(description="Number of a size, or a pair [-1, channels] where the number never changes.")
    because: str | None = Field(None, description="Why the layer keeps all its channels, if it does.")


class Narrowing(BaseModel):
    """How the figures of a network follow from the channels that stay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: list[tuple[int, int]] = Field(description="For each group of channels its cells and their size.")
    sizes: list[list[int]] = Field(
        description="Sizes of axes: [entries that stay, group, entries for each member left in a cell, group, …]."
    )
    totals: dict[Measure, list[list[int]]] = Field(description="Sums of [factor, size, size, …].")
    layers: list[LayerChannels]


@dataclass(frozen=True, slots=True)
class Figures:
    """The cost of a network, for one image."""

    width: float
    parameters: int  # trained values
    macs: int  # multiply-adds of convolutions and matrix products
    activation_bytes: int  # float32 bytes of all values that are computed
    weight_bytes: int  # float32 bytes of parameters and running statistics
    layers: tuple[tuple[str, int], ...]  # name and output channels of each layer with weights


def figures_of(narrowing: Narrowing, staying: Sequence[int], *, width: float = 1.0) -> Figures:
    """Return the figures of a copy in which each cell of a group has `staying` members left."""
    sizes = [_size(size, staying) for size in narrowing.sizes]
    totals = {
        name: sum(term[0] * math.prod(sizes[at] for at in term[1:]) for term in terms)
        for name, terms in narrowing.totals.items()
    }
    return Figures(
        width=width,
        parameters=totals["parameters"],
        macs=totals["macs"],
        activation_bytes=4 * totals["activations"],
        weight_bytes=4 * (totals["parameters"] + totals["statistics"]),
        layers=tuple((layer.name, _channels(layer, sizes)) for layer in narrowing.layers),
    )


def staying_at(narrowing: Narrowing, width: float) -> list[int]:
    """Return how many members stay in each cell of each group if every number of channels is `scaled` by `width`."""
    return [min(size, scaled(size, width)) for _, size in narrowing.groups]


def figures_at(narrowing: Narrowing, width: float) -> Figures:
    """Return the figures of the copy of this width."""
    return figures_of(narrowing, staying_at(narrowing, width), width=width)


def width_for(narrowing: Narrowing, parameters: int) -> float:
    """Return the largest width whose copy has at most this number of parameters.

    Raises:
        StudentError: even a copy with one channel in each group has more.
    """
    low, high, best = 0.0, 1.0, None
    for _ in range(BISECTIONS):
        width = (low + high) / 2
        if figures_at(narrowing, width).parameters <= parameters:
            low, best = width, width
        else:
            high = width
    if best is None:
        least = figures_at(narrowing, 0.0).parameters
        raise StudentError(
            f"the teacher's graph cannot be narrowed to {parameters} parameters; {least} is the least",
            hint="Choose a larger student.params, or an architecture of the catalogue; GET /menu lists the students.",
            pointer="/student/params",
        )
    return best


def _size(size: Sequence[int], staying: Sequence[int]) -> int:
    return size[0] + sum(staying[size[at]] * size[at + 1] for at in range(1, len(size), 2))


def _channels(layer: LayerChannels, sizes: Sequence[int]) -> int:
    return layer.size[1] if layer.size[0] < 0 else sizes[layer.size[0]]
