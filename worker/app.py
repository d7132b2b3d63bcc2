"""The worker process: the workshop, the bell, and the signals. Imports no torch; only the runner child does."""

import logging
import os
import signal
import threading
from functools import partial

from jobs.broker import make_celery, ring
from jobs.files.artifacts import open_artifacts
from jobs.settings import Settings
from jobs.store import open_store
from worker.doorbell import BellListener
from worker.metrics import serve
from worker.slots import Workshop

log = logging.getLogger(__name__)


def work(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT; a second signal ends it on the spot (its runners die with it)."""
    stop = _stop_on_signal()
    store = open_store(settings)
    celery = make_celery(settings) if settings.broker_url else None
    workshop = Workshop(
        settings, store, open_artifacts(settings), ring=None if celery is None else partial(ring, celery)
    )
    bell = None
    if celery is not None:
        bell = BellListener(
            celery,
            workshop.look,
            device_class=settings.worker_device_class,
            slots=settings.worker_slots,
            name=workshop.worker_id,
        )
        bell.start()
    serve(settings)
    workshop.start()
    log.info("worker ready", extra={"worker_id": workshop.worker_id, "slots": settings.worker_slots})
    stop.wait()
    log.info("worker draining", extra={"worker_id": workshop.worker_id})
    workshop.drain()
    if bell is not None:
        bell.stop()
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
