"""The heap gives free memory back where there is much of it."""

import subprocess
import sys

import pytest

from dfkd_core import heap

pytestmark = pytest.mark.skipif(not heap.free_bytes(), reason="this malloc does not tell what it keeps")

CHILD = """
import psutil
import torch
from dfkd_core import heap

def resident():
    return psutil.Process().memory_info().rss

before = resident()
pieces = [torch.ones(2**20) for _ in range(128)]  # 4 MiB each
kept = pieces[::8]
del pieces
held = resident()
told = heap.free_bytes()
heap.give_back()
assert all(bool((piece == 1).all()) for piece in kept)
print(before, held, told, resident())
"""


def measured(most_free: int) -> tuple[int, int, int, int]:
    """Run the child with the malloc settings of a run.

    Return four numbers of bytes: resident before there are buffers, resident with holes between them, free by what the
    heap says, and resident at the end.
    """
    environment = {"MALLOC_MMAP_THRESHOLD_": str(2**28), "MALLOC_TRIM_THRESHOLD_": str(2**31)}
    text = f"from dfkd_core import heap\nheap.MOST_FREE = {most_free}\n{CHILD}"
    output = subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True
    ).stdout
    before, held, told, after = map(int, output.split())
    return before, held, told, after


def test_holes_between_buffers_are_given_back() -> None:
    before, held, told, after = measured(2**28)
    assert held - before > 450 * 2**20
    assert told > 400 * 2**20
    assert held - after > 350 * 2**20


def test_little_free_memory_is_kept_for_the_next_buffers() -> None:
    _before, held, told, after = measured(2**32)
    assert told > 400 * 2**20
    assert held - after < 50 * 2**20
