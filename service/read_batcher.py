"""Answers polls that wait for the ledger at the same time with one read.

Requests that arrive during a read share the next one. Handing a read to a thread and back costs more than the rows
themselves, because event loop and thread pass the interpreter's lock to and fro. Under load the reads therefore get
larger instead of more numerous.
"""

import asyncio

from anyio import to_thread

from jobs.errors import JobNotFound
from jobs.ledger.queries import JobKey
from jobs.models import JobWithPosition
from jobs.store import Store

PATIENCE_SECONDS = 0.2  # after this time the next read starts beside the one that still runs


class ReadBatcher:
    """Reads jobs for all requests of one event loop."""

    def __init__(self, ledger: Store) -> None:
        self._ledger = ledger
        self._waiting: dict[JobKey, asyncio.Future[JobWithPosition]] = {}
        self._patience: asyncio.TimerHandle | None = None  # while this timer runs, new requests wait
        self._reads: set[asyncio.Task[None]] = set()

    async def job_with_position(self, tenant: str | None, job_id: str) -> JobWithPosition:
        """Return a job as it is at an instant after this was asked. JobNotFound; LedgerUnavailable."""
        wanted = (tenant, job_id)
        future = self._waiting.get(wanted)
        if future is None:
            future = self._waiting[wanted] = asyncio.get_running_loop().create_future()
        if self._patience is None:
            self._begin()
        return await asyncio.shield(future)  # other requests may wait for the same future

    def _begin(self) -> None:
        """Start one read for all jobs that are waited for."""
        batch, self._waiting = self._waiting, {}
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._go_on)
        read = asyncio.create_task(self._read(batch, self._patience))
        self._reads.add(read)
        read.add_done_callback(self._reads.discard)

    def _go_on(self) -> None:
        """Start the next read: the current one has ended or takes too long."""
        self._patience = None
        if self._waiting:
            self._begin()

    async def _read(self, batch: dict[JobKey, asyncio.Future[JobWithPosition]], patience: asyncio.TimerHandle) -> None:
        try:
            found = await to_thread.run_sync(self._ledger.jobs_with_positions, list(batch))
        except Exception as error:  # every waiting request gets the error
            for future in batch.values():
                future.set_exception(error)
        else:
            for wanted, future in batch.items():
                if wanted in found:
                    future.set_result(found[wanted])
                else:
                    future.set_exception(JobNotFound(wanted[1]))
        finally:
            if self._patience is patience:
                patience.cancel()
                self._go_on()
