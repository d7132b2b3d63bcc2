"""Random draws that can be repeated. Every draw of a run comes from a named generator, which depends on the seed and
the name alone.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Streams:
    """Named CPU generators, each made at its first use. A draw from one never changes another."""

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
        """The state of every generator, by name."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set every generator to its state in `state`, in place: objects that hold a generator continue from there."""
        for name, position in state.items():
            self[name].set_state(position)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Inside the block, `threads` CPU threads and deterministic algorithms; afterwards the process's own settings."""
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic_before)
        torch.set_num_threads(threads_before)
