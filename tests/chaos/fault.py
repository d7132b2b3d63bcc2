"""`@fault("F01")`: a test of one row of the table, repeated as requested, skipped if this machine cannot run it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.chaos.table import TABLE, chaos_count, chaos_seed, runs_of


class Run:
    """One run of a test: its own random numbers, and what it measured."""

    def __init__(self, row: str, number: int, properties: list[tuple[str, object]]) -> None:
        self.row = row
        self.number = number
        self.random = Random(f"{chaos_seed()} {row} {number}")
        self._properties = properties

    def figure(self, name: str, value: float) -> None:
        """A measurement; the table keeps the worst."""
        self._properties.append((name, float(value)))


NEEDS: dict[str, Callable[[], bool]] = {
    "root": lambda: os.geteuid() == 0,
    "strace": lambda: shutil.which("strace") is not None,
    "faketime": lambda: shutil.which("faketime") is not None,
    "e2fsprogs": lambda: shutil.which("mkfs.ext4") is not None,
    "util-linux": lambda: shutil.which("unshare") is not None,
    "loop devices": lambda: Path("/dev/loop-control").exists(),
    "memory cgroup": lambda: Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists(),
}


def fault(
    row: str, *, short: bool = False, cheap: bool = False, share: float = 1.0, needs: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`short`: run once by `make test`, too. `share`: of the runs of the row, where several tests divide them.

    `cheap`: takes so little time that CHAOS_CHEAP may ask for more runs.
    """
    assert row in TABLE
    missing = [name for name in needs if not NEEDS[name]()]

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        numbers = range(runs_of(row, cheap=cheap, share=share))
        marked: Any = pytest.mark.parametrize("run", [(row, number) for number in numbers], ids=str, indirect=True)(
            test
        )
        marked = pytest.mark.skipif(bool(missing), reason=f"no {', no '.join(missing)}")(marked)
        if chaos_count() is not None or not short:
            marked = pytest.mark.chaos(marked)
        found: Callable[..., None] = marked
        return found

    return mark
