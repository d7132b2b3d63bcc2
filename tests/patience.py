"""How long tests wait, and how slow this machine is at the moment.

A test that waits for an event waits up to `PATIENCE`: only a test that fails ever waits so long. A test that must let
a real time limit pass (a lease, an idle limit) scales this limit with `scaled`, so that a busy machine reaches it in
the same order of events as an idle one.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 300.0  # seconds that any event may take on a machine that has much else to do
_IDLE_SECONDS = 0.12  # what one reference process takes where nothing else runs
_KNOWN_SECONDS = 30.0  # for how long a measurement is used again
_REFERENCE = "total = 0\nfor number in range(1_000_000):\n    total += number * number"

T = TypeVar("T")
_measured: list[tuple[float, float]] = []  # when, and how slow


def until(condition: Callable[[], T], *, seconds: float = PATIENCE) -> T:
    """The first true answer of `condition`, which is asked again and again.

    Raises:
        AssertionError: no answer was true within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(0.02)
    return answer


def slowness() -> float:
    """How many times slower than an idle machine this one starts a process and computes; at least 1."""
    if not _measured or time.monotonic() - _measured[-1][0] > _KNOWN_SECONDS:
        slowest = max(_reference_seconds() for _ in range(2))
        _measured.append((time.monotonic(), max(1.0, slowest / _IDLE_SECONDS)))
    return max(factor for _, factor in _measured[-3:])


def scaled(seconds: float) -> float:
    """A time limit of the protocol under test, for this machine as it is now."""
    return seconds * slowness()


def _reference_seconds() -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-I", "-S", "-c", _REFERENCE], check=True, timeout=PATIENCE)
    return time.monotonic() - begun
