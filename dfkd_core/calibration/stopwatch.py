"""Measures how long a call takes: the fastest of several repetitions, in wall-clock time."""

import time
from collections.abc import Callable

import torch

LEAST_SECONDS = 0.012  # a call is repeated until one repetition takes this long
REPETITIONS = 3
MOST_CALLS = 1000


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call. A first call warms up; others on the machine only make calls slower."""
    once = _timed(call, 1, device)
    once = min(once, _timed(call, 1, device))
    calls = min(MOST_CALLS, max(1, round(LEAST_SECONDS / max(once, 1e-9))))
    return min(_timed(call, calls, device) / calls for _ in range(REPETITIONS))


def _timed(call: Callable[[], object], calls: int, device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    for _ in range(calls):
        call()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
