"""Choice: which channels stay. A member is scored by the squared weights of its entries; those with the least go.

The weights are those that make a channel, those that read it, and the scales of its normalisations, as in Fang, Ma,
Song, Mi, Wang: *DepGraph: Towards Any Structural Pruning*, CVPR 2023, https://arxiv.org/abs/2301.12900, whose groups of
coupled channels are found by `groups` here. One group is cut after another, the last one first, so that weights of
channels that have gone count no more.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dfkd_core.narrowing.groups import FIXED, Channels
from dfkd_core.narrowing.trace import Use

Mask = NDArray[np.bool_]
Scores = NDArray[np.float64]
Score = Callable[[Channels, int, Mask], Scores]
"""Gets the channels, the number of a group, and for each channel whether its member is still there; returns a value for
each channel that names a member of the group: (channels,). The lowest go.
"""

WEIGHTS = ("out", "in", "scale")


def magnitude(channels: Channels, group: int, present: Mask) -> Scores:
    """Return for each member of a group the sum of its squared weights: (channels,)."""
    scores = np.zeros(len(channels.group_of))
    for use in channels.uses:
        if use.role in WEIGHTS and (channels.group_of[use.ids] == group).any():
            np.add.at(scores, use.ids.ravel(), squares_of(channels, use, present).ravel())
    return scores


def squares_of(channels: Channels, use: Use, present: Mask) -> Scores:
    """Return the sum of the squared entries of a constant for each channel of a use: shape of `use.ids`."""
    array = channels.plan.constants[str(channels.plan.steps[use.step].inputs[use.position])]
    array = array if use.view is None else array.reshape(use.view)
    squares = np.square(array.astype(np.float64))
    for other in channels.uses_at[use.step, use.position]:
        if other is not use:
            squares = squares * _spread(present[other.ids], other.axes, squares.ndim)
    axes = [axis for axis in use.axes if axis is not None]
    summed = squares.sum(axis=tuple(axis for axis in range(squares.ndim) if axis not in axes))
    return np.asarray(summed).transpose(np.argsort(np.argsort(axes)))


def _spread(values: Mask, axes: Sequence[int | None], rank: int) -> Mask:
    """Values along some axes of an array of this rank, in a shape that broadcasts over the others."""
    own = [axis for axis in axes if axis is not None]
    values = values.transpose(np.argsort(own))
    sizes = dict(zip(sorted(own), values.shape, strict=True))
    return values.reshape([sizes.get(axis, 1) for axis in range(rank)])


def choose(channels: Channels, staying: Sequence[int], score: Score = magnitude) -> Mask:
    """Return for each channel whether the member that it names stays: the best of each cell, as many as `staying` says.

    Equal scores are told apart by the order of the channels.
    """
    present = np.ones(len(channels.group_of), np.bool_)
    for number, (group, count) in reversed(list(enumerate(zip(channels.groups, staying, strict=True)))):
        if count == group.cells.shape[1]:
            continue
        scores = score(channels, number, present)
        for cell in group.cells:
            present[cell[np.argsort(scores[cell], kind="stable")[: len(cell) - count]]] = False
    chosen: Mask = present | (channels.group_of == FIXED)
    return chosen
