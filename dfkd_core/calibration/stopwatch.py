"""Measures how long a call takes in a run: longer than the fastest of several repetitions.

One thread is measured by the time of the processor, which other work on the machine does not change; several threads,
which wait for each other, and a GPU are measured by the clock on the wall.
"""

import time
from collections.abc import Callable

import torch

LEAST_SECONDS = 0.012  # a call is repeated until one repetition takes this long
REPETITIONS = 3
COLD = 1.25
"""How many times as long a call takes in a run. A repetition finds in the caches what it needs, and nothing disturbs
the fastest one; plans without it were 0.74 of what nine runs took, as a geometric mean (docs/measurements.md)."""
MOST_CALLS = 1000


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call in a run. A first call warms up."""
    once = _timed(call, 1, device)
    once = min(once, _timed(call, 1, device))
    calls = min(MOST_CALLS, max(1, round(LEAST_SECONDS / max(once, 1e-9))))
    return COLD * min(_timed(call, calls, device) / calls for _ in range(REPETITIONS))


def _timed(call: Callable[[], object], calls: int, device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _finish(device)
    started = clock()
    for _ in range(calls):
        call()
    _finish(device)
    return clock() - started


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
