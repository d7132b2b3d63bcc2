"""Signs of life while a library works for long and tells nothing, such as the export of a student (torch-free)."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dfkd_core.pulse import Pulse

LOOK_SECONDS = 0.5  # between two looks at what the thread has computed
WORK_SECONDS = 0.005  # of the processor: a thread that has taken them since the last beat has worked


@contextmanager
def beating(pulse: Pulse) -> Iterator[None]:
    """Beat while the block works, which must not use the pulse itself, and once after it. The block is not interrupted.

    A second thread looks now and then how much of the processor this thread has used, and beats if that has grown. So a
    library that computes is heard, and one that waits for ever is not.
    """
    done = threading.Event()
    looking = (pulse, time.pthread_getcpuclockid(threading.get_ident()), done)
    watch = threading.Thread(target=_watch, args=looking, name="library-watch", daemon=True)
    with pulse.undisturbed():
        watch.start()
        try:
            yield
        finally:
            done.set()
            watch.join()
    pulse.beat()


def _watch(pulse: Pulse, clock: int, done: threading.Event) -> None:
    beaten_at = time.clock_gettime(clock)
    while not done.wait(LOOK_SECONDS):
        now = time.clock_gettime(clock)
        if now - beaten_at >= WORK_SECONDS:
            beaten_at = now
            pulse.beat()
