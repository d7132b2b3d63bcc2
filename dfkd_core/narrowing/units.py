"""`Units`: disjoint sets of channels. The channels of one set can only be removed together."""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

FIRST_ROOM = 1024


class Units:
    """Sets of channels, each channel a number. A set that is fixed keeps all its channels, for a reason."""

    def __init__(self) -> None:
        self._parents: Ids = np.arange(FIRST_ROOM)
        self._count = 0
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def new(self, *shape: int) -> Ids:
        """Return new channels, each a set of its own, as an array of `shape`."""
        first, self._count = self._count, self._count + int(np.prod(shape))
        if self._count > len(self._parents):
            more = np.arange(len(self._parents), max(self._count, 2 * len(self._parents)))
            self._parents = np.concatenate([self._parents, more])
        return np.arange(first, self._count).reshape(shape)

    def find(self, ids: Ids) -> Ids:
        """Return the smallest channel of the set of each channel, which names the set."""
        roots = self._parents[ids]
        while not np.array_equal(roots, above := self._parents[roots]):
            roots = above
        self._parents[ids] = roots
        return roots

    def unite(self, first: Ids, second: Ids) -> None:
        """Join the sets of two arrays of channels, pair by pair; the arrays broadcast."""
        one, two = np.broadcast_arrays(self.find(first), self.find(second))
        different = one != two
        if not different.any():
            return
        pairs = np.unique(np.stack([one[different], two[different]]), axis=1)
        for left, right in pairs.T.tolist():
            low, high = sorted((self._root(left), self._root(right)))
            self._parents[high] = low

    def _root(self, channel: int) -> int:
        parents = self._parents
        while parents[channel] != channel:
            parents[channel] = parents[parents[channel]]
            channel = int(parents[channel])
        return channel

    def fix(self, ids: Ids, reason: str) -> None:
        """Say that these channels stay, and why; the first reason counts."""
        for channel in np.unique(self.find(ids)).tolist():
            self._reasons.setdefault(channel, reason)

    def reasons(self) -> dict[int, str]:
        """Return the fixed sets by name, each with the reason."""
        found: dict[int, str] = {}
        for channel, reason in self._reasons.items():
            found.setdefault(self._root(channel), reason)
        return found
