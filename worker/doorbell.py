"""The Celery worker, in a thread of its own: nothing that happens to the broker can stop, delay or kill a job."""

import logging
import threading
from collections.abc import Callable

from celery import Celery
from celery.worker import WorkController, state

from jobs.broker import queue_of
from jobs.devices import DeviceClass, served_by
from worker.tasks import answer_with

log = logging.getLogger(__name__)

_RESTART_SECONDS = 0.2  # Celery gives up on every message that it cannot read; a broker that is away it retries itself
_STOP_SECONDS = 3.0


class BellListener(threading.Thread):
    """Consumes the bells of what a class of device serves until stopped; a consumer that gave up is started again."""

    def __init__(
        self, celery: Celery, look: Callable[[], None], *, device_class: DeviceClass, slots: int, name: str
    ) -> None:
        super().__init__(name="bell", daemon=True)
        self._celery = celery
        self._queues = [queue_of(served) for served in served_by(device_class)]
        self._slots = slots
        self._node = f"dfkd-{name}"
        self._stopping = threading.Event()
        answer_with(celery, look)

    def stop(self) -> None:
        """Stop listening; a broker that hangs is not waited for."""
        self._stopping.set()
        state.should_stop = 0
        self.join(_STOP_SECONDS)

    def run(self) -> None:
        """Until stopped."""
        while not self._stopping.is_set():
            consumer = WorkController(
                app=self._celery,
                hostname=self._node,
                pool="threads",
                concurrency=self._slots,
                queues=self._queues,
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
            )
            consumer.start()
            if not self._stopping.wait(_RESTART_SECONDS):
                log.error("the bell's consumer gave up and is started again")
