"""Regressor: a linear map that guesses a teacher's features from a student's, solved again at each update."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

DECAY = 0.9  # of the remembered moments, at each update
RIDGE = 1e-3  # as a share of the mean square of a feature


class Regressor:
    """The ridge regression over the rows of the present comparison and, with falling weight, of those before."""

    def __init__(self) -> None:
        self._moments: Tensor | None = None  # remembered: (F + 1, F + 1 + G), see `_moments_of`
        self._updates = 0  # remembered
        self._seen: list[Tensor] = []  # moments of the comparisons since the last update

    def guess(self, known: Tensor, wanted: Tensor) -> Tensor:
        """Return the guess (N, G) of `wanted` (N, G) from `known` (N, F); its gradient reaches `known` only."""
        inputs = torch.cat([known, known.new_ones(len(known), 1)], dim=1)
        present = _moments_of(inputs.detach(), wanted.detach())
        self._seen.append(present)
        return inputs @ _solved(self._mixed(present))

    def _mixed(self, present: Tensor) -> Tensor:
        """Return the remembered moments with the present ones; the weights of the first updates are equal."""
        if self._moments is None:
            return present
        return torch.lerp(present, self._moments, min(DECAY, self._updates / (self._updates + 1)))

    def remember(self) -> None:
        """Take in the comparisons since the last call, which are the parts of one update."""
        if self._seen:
            self._moments = self._mixed(torch.stack(self._seen).mean(dim=0))
            self._updates += 1
            self._seen.clear()

    def state(self) -> dict[str, Any]:
        """Return what is remembered; the dict is empty before the first update."""
        return {} if self._moments is None else {"moments": self._moments, "updates": self._updates}

    def restore(self, state: Mapping[str, Any], *, device: torch.device) -> None:
        """Continue from the `state` of an earlier regressor. Those of older releases are none: it starts anew."""
        self._seen.clear()
        if "moments" in state:
            self._moments, self._updates = state["moments"].to(device, copy=True), state["updates"]


def _moments_of(inputs: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean products (F + 1, F + 1 + G) of the inputs (N, F + 1) with themselves and with `wanted` (N, G)."""
    return inputs.T @ torch.cat([inputs, wanted], dim=1) / len(inputs)


def _solved(moments: Tensor) -> Tensor:
    """Return the ridge regression (F + 1, G) of these moments."""
    count = len(moments)
    gram, products = moments[:, :count], moments[:, count:]
    pull = RIDGE * gram.diagonal().mean() * torch.eye(count, device=gram.device)
    solution: Tensor = torch.linalg.solve(gram + pull, products)
    return solution
