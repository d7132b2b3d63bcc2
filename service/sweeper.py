"""Background maintenance: ends expired leases, announces jobs that are due and deletes what is no longer kept."""

import logging
import time

import anyio
from anyio import to_thread

from jobs.broker import notify
from jobs.db.db_time import DAY_SECONDS
from jobs.errors import LedgerError
from jobs.garbage_collector import collect_garbage
from jobs.metrics import DOORBELLS_RERUNG
from service.dependencies import AppContext

log = logging.getLogger(__name__)

JANITOR_SECONDS = 3600.0


async def run_maintenance(context: AppContext) -> None:
    """Run `sweep` at every interval and `delete_expired` every hour until cancelled; errors are retried next time."""
    next_cleaning = time.monotonic()
    while True:
        try:
            await to_thread.run_sync(sweep, context)
            if time.monotonic() >= next_cleaning:
                await to_thread.run_sync(delete_expired, context)
                next_cleaning = time.monotonic() + JANITOR_SECONDS
        except (LedgerError, OSError):
            log.warning("housekeeping failed; it will be tried again", exc_info=True)
        await anyio.sleep(context.settings.sweep_seconds)


def delete_expired(context: AppContext) -> None:
    """Delete idempotency keys, audit lines, jobs and files that are older than they are kept."""
    settings = context.settings
    context.ledger.keys.delete_expired()
    context.ledger.adopt_teachers()
    context.ledger.audit_log.delete_old(settings.audit_days * DAY_SECONDS)
    collect_garbage(
        context.ledger,
        context.artifacts,
        retention_seconds=settings.retention_seconds,
        checkpoint_retention_seconds=settings.checkpoint_retention_seconds,
    )


def sweep(context: AppContext) -> None:
    """Take back what dead workers hold, and ring for every job that is due; note which keys were used."""
    if used := context.key_cache.take_used():
        context.ledger.api_keys.note_use(used)
    found = context.ledger.sweep()
    for job_id, device_class in found.notify.items():
        if not notify(context.celery, job_id, device_class):
            return  # the next round rings again; a broker that is down is not asked for every job
        DOORBELLS_RERUNG.inc()
