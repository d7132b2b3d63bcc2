"""Notices a stop signal early, so that event streams end by themselves instead of being cut.

uvicorn first waits for open connections and only then ends the lifespan. A stream that did not know of the signal would
delay the stop until uvicorn's timeout.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def set_on_stop_signal(stopping: threading.Event) -> Iterator[None]:
    """Set `stopping` when a signal to stop comes; the server's own handler still gets it. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.set()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
