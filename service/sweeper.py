"""What the service does beside answering: it sweeps the ledger, rings for jobs that wait, and clears leftovers."""

import logging
import time

import anyio
from anyio import to_thread

from jobs.broker import ring
from jobs.db.db_time import DAY_SECONDS
from jobs.errors import LedgerError
from jobs.garbage_collector import clean
from jobs.metrics import DOORBELLS_RERUNG
from service.dependencies import Desk

log = logging.getLogger(__name__)

JANITOR_SECONDS = 3600.0


async def keep_house(desk: Desk) -> None:
    """Until cancelled. A database that does not answer is tried again at the next round."""
    next_cleaning = time.monotonic()
    while True:
        try:
            await to_thread.run_sync(sweep, desk)
            if time.monotonic() >= next_cleaning:
                await to_thread.run_sync(clean_up, desk)
                next_cleaning = time.monotonic() + JANITOR_SECONDS
        except (LedgerError, OSError):
            log.warning("housekeeping failed; it will be tried again", exc_info=True)
        await anyio.sleep(desk.settings.sweep_seconds)


def clean_up(desk: Desk) -> None:
    """Remove what is over its time."""
    desk.ledger.keys.forget_old()
    desk.ledger.adopt_teachers()
    desk.ledger.trail.forget_old(desk.settings.audit_days * DAY_SECONDS)
    clean(desk.ledger, desk.artifacts, retention_seconds=desk.settings.retention_days * DAY_SECONDS)


def sweep(desk: Desk) -> None:
    """Take back what dead workers hold, and ring for every job that is due; note which keys were used."""
    if used := desk.keyring.take_used():
        desk.ledger.api_keys.note_use(used)
    found = desk.ledger.sweep()
    for job_id, device_class in found.ring.items():
        if not ring(desk.celery, job_id, device_class):
            return  # the next round rings again; a broker that is down is not asked for every job
        DOORBELLS_RERUNG.inc()
