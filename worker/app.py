"""The worker process: slots, queue consumer and signals. It imports no torch; only the runner child does."""

import logging
import os
import signal
import threading
from functools import partial

from jobs.broker import make_celery, notify
from jobs.files.artifacts import open_artifacts
from jobs.settings import Settings
from jobs.store import open_store
from worker.doorbell import NotificationConsumer
from worker.measurement import Measurement
from worker.metrics import serve
from worker.slots import WorkerPool

log = logging.getLogger(__name__)


def work(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT. A second signal ends it at once, and its runners die with it."""
    stop = _stop_on_signal()
    store = open_store(settings)
    celery = make_celery(settings) if settings.broker_url else None
    send = None if celery is None else partial(notify, celery)
    pool = WorkerPool(settings, store, open_artifacts(settings), notify=send, measurement=Measurement(settings))
    consumer = None
    if celery is not None:
        consumer = NotificationConsumer(
            celery,
            pool.wake,
            device_class=settings.worker_device_class,
            slots=settings.worker_slots,
            name=pool.worker_id,
        )
        consumer.start()
    serve(settings)
    pool.start()
    log.info("worker ready", extra={"worker_id": pool.worker_id, "slots": settings.worker_slots})
    stop.wait()
    log.info("worker draining", extra={"worker_id": pool.worker_id})
    pool.drain()
    if consumer is not None:
        consumer.stop()
    store.close()


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
