"""A library that works for long is heard, and may be interrupted only behind its work."""

from collections.abc import Callable

import pytest

from dfkd_core.library_watch import beating
from dfkd_core.pulse import Interrupted, Pulse


class Impatient:
    """Interrupts at every beat that may be interrupted, and keeps what it heard."""

    def __init__(self) -> None:
        self.heard: list[bool] = []

    def on_beat(self, *, interruptible: bool) -> None:
        self.heard.append(interruptible)
        if interruptible:
            raise Interrupted

    def on_safe_point(self) -> None:
        raise AssertionError("there is none")


def test_work_in_a_block_is_heard_and_interrupted_only_behind_it() -> None:
    listener = Impatient()
    pulse = Pulse(listener)
    with pytest.raises(Interrupted), beating(pulse):
        _work_until(lambda: pulse.beats > 1)
    assert listener.heard == [False, False, True]


def _work_until(condition: Callable[[], bool]) -> None:
    while not condition():
        sum(number * number for number in range(1000))


def test_an_error_in_a_block_is_not_lost() -> None:
    with pytest.raises(ZeroDivisionError), beating(Pulse()):
        raise ZeroDivisionError
