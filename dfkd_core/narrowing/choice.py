"""Choice: which channels stay. A member is scored by the squared weights of its entries; those with the least go.

The weights are those that make a channel, those that read it, and the scales of its normalisations, as in Fang, Ma,
Song, Mi, Wang: *DepGraph: Towards Any Structural Pruning*, CVPR 2023, https://arxiv.org/abs/2301.12900, whose groups of
coupled channels are found by `groups` here.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dfkd_core.narrowing.groups import Channels
from dfkd_core.narrowing.trace import Use

Scores = NDArray[np.float64]
Score = Callable[[Channels], Scores]
"""Returns a value for each channel that names a member: (channels,). The lowest go."""

WEIGHTS = ("out", "in", "scale")


def magnitude(channels: Channels) -> Scores:
    """Return for each member the sum of its squared weights: (channels,)."""
    scores = np.zeros(len(channels.group_of))
    for use in channels.uses:
        if use.role in WEIGHTS:
            np.add.at(scores, use.ids.ravel(), squares_of(channels, use).ravel())
    return scores


def squares_of(channels: Channels, use: Use) -> Scores:
    """Return the sum of the squared entries of a constant for each channel of a use: shape of `use.ids`."""
    array = channels.plan.constants[str(channels.plan.steps[use.step].inputs[use.position])].astype(np.float64)
    array = array if use.view is None else array.reshape(use.view)
    axes = [axis for axis in use.axes if axis is not None]
    summed = np.square(array).sum(axis=tuple(axis for axis in range(array.ndim) if axis not in axes))
    return np.asarray(summed).transpose(np.argsort(np.argsort(axes)))


def choose(channels: Channels, staying: Sequence[int], score: Score = magnitude) -> NDArray[np.bool_]:
    """Return for each channel whether the member that it names stays: the best of each cell, as many as `staying` says.

    Equal scores are told apart by the order of the channels.
    """
    scores = score(channels)
    chosen = np.zeros(len(channels.group_of), np.bool_)
    for group, count in zip(channels.groups, staying, strict=True):
        for cell in group.cells:
            ordered = cell[np.argsort(scores[cell], kind="stable")]
            chosen[ordered[len(ordered) - count :]] = True
    return chosen
