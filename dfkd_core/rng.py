"""Reproducible random numbers. Every draw of a run comes from a named generator, whose seed depends only on the run's
seed and the name.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils import deterministic


class Streams:
    """Named CPU generators, each created at its first use. A draw from one generator does not change the others."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = self.again(name)
        return self._generators[name]

    def seed_of(self, name: str) -> int:
        """Return the 63-bit seed of one stream."""
        digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def again(self, name: str) -> torch.Generator:
        """Return a new generator that makes the draws of one stream from its start."""
        return torch.Generator().manual_seed(self.seed_of(name))

    def state(self) -> dict[str, Tensor]:
        """Return the state of every generator, by name."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set every generator to its state in `state`, in place: objects that hold a generator continue from there.

        A generator that `state` does not know goes back to its start.
        """
        for name in self._generators.keys() - state.keys():
            self[name].manual_seed(self.seed_of(name))
        for name, position in state.items():
            self[name].set_state(position)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Use `threads` CPU threads and deterministic algorithms inside the block, and restore the settings afterwards.

    PyTorch then also fills every new tensor, for programs that read what they have not written. It is told not to, for
    that takes up to a sixth of an update (docs/measurements.md).
    """
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    filled_before = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        deterministic.fill_uninitialized_memory = filled_before  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(deterministic_before)
        torch.set_num_threads(threads_before)
