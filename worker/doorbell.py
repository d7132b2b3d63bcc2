"""Queue messages wake a slot. A message only says "look at the jobs table"; which job it names does not matter.

The Celery worker runs in a thread of its own, so that nothing that happens to the broker can stop, delay or kill a job.
"""

import logging
import threading
from collections.abc import Callable

from celery import Celery
from celery.worker import WorkController, state

from jobs.broker import TASK, queue_of
from jobs.devices import DeviceClass, served_by

log = logging.getLogger(__name__)

_RESTART_SECONDS = 0.2  # Celery stops at any message that it cannot read; it waits for a broker that is away by itself
_STOP_SECONDS = 3.0


class NotificationConsumer(threading.Thread):
    """Consumes the queues that a class of device serves, until stopped. A consumer that gave up is started again."""

    def __init__(
        self, celery: Celery, wake: Callable[[], None], *, device_class: DeviceClass, slots: int, name: str
    ) -> None:
        super().__init__(name="notifications", daemon=True)
        self._celery = celery
        self._queues = [queue_of(served) for served in served_by(device_class)]
        self._slots = slots
        self._node = f"dfkd-{name}"
        self._stopping = threading.Event()
        _register_task(celery, wake)

    def stop(self) -> None:
        """Stop consuming. A broker that hangs is not waited for."""
        self._stopping.set()
        state.should_stop = 0
        self.join(_STOP_SECONDS)

    def run(self) -> None:
        """Consume messages until stopped."""
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
                log.error("the queue's consumer gave up and is started again")


def _register_task(celery: Celery, wake: Callable[[], None]) -> None:
    """Register the only task. `wake` must return at once: it wakes a slot, which claims and supervises a job."""

    @celery.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def on_message(_job_id: str) -> None:
        wake()
