"""Streams: every random draw of a run comes from a named generator that depends on the seed and the name alone."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


class Streams:
    """Named CPU generators, made when first asked for. Drawing from one never moves another."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = torch.Generator().manual_seed(self.seed_of(name))
        return self._generators[name]

    def seed_of(self, name: str) -> int:
        """The 63-bit seed of one stream."""
        digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def state(self) -> dict[str, Tensor]:
        """Where every stream stands."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put every stream back to where `state` says, in place: whoever holds one goes on with it."""
        for name, position in state.items():
            self[name].set_state(position)
