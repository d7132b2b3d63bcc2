"""The slots, which claim and supervise jobs, and the maintenance thread. They need the ledger, but not the broker."""

import itertools
import logging
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from jobs.devices import DeviceClass
from jobs.errors import LedgerError
from jobs.files.artifacts import ArtifactStore
from jobs.log_context import about
from jobs.metrics import DOORBELLS_RERUNG
from jobs.settings import Settings
from jobs.store import Store
from worker.measurement import Measurement
from worker.metrics import count_claim
from worker.runner.process import RUNNER_COMMAND
from worker.supervision.context import remove_stale_attempts
from worker.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between looks at the jobs table where there is no broker
_PAUSE_SECONDS = 1.0
_CLEANUP_SECONDS = 60.0
_TEMPORARY_FILE_SECONDS = 86400.0
_EXIT_SECONDS = 5.0


class WorkerPool:
    """The threads of one worker process: `worker_slots` slots and one for maintenance. Every start has a new id."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        artifacts: ArtifactStore,
        *,
        notify: Callable[[str, DeviceClass], bool] | None = None,
        measurement: Measurement | None = None,
        command: Sequence[str] = RUNNER_COMMAND,
    ) -> None:
        """`notify` sends a queue message about a waiting job; None where there is no broker. `measurement` finds out
        how fast this worker is, while it has nothing else to do.
        """
        self.worker_id = uuid.uuid4().hex
        self._settings = settings
        self._store = store
        self._artifacts = artifacts
        self._notify = notify
        self._measurement = measurement
        self._num_busy = 0
        self._counting = threading.Lock()
        self._draining = threading.Event()
        self._wake_ups: queue.Queue[None] = queue.Queue(settings.worker_slots)
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")  # lives as long as the process
        self._supervisor = Supervisor(
            store,
            artifacts,
            settings,
            worker_id=self.worker_id,
            spawner=self._spawner,
            draining=self._draining,
            measurement=measurement,
            command=command,
        )
        self._threads = [
            threading.Thread(target=self._slot_loop, name=f"slot-{number}") for number in range(settings.worker_slots)
        ]
        self._threads.append(threading.Thread(target=self._maintenance_loop, name="maintenance"))
        self._next_cleanup = 0.0

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Wake a free slot to look at the jobs table. Returns at once."""
        with suppress(queue.Full):
            self._wake_ups.put_nowait(None)

    def drain(self) -> None:
        """Stop claiming, stop the runners after a checkpoint, give their jobs back, and sign the worker off."""
        self._draining.set()
        if self._measurement is not None:
            self._measurement.interrupt()
        self._wake_all()
        deadline = time.monotonic() + self._settings.stop_grace_seconds + _EXIT_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._spawner.shutdown(wait=False)
        with self._log_and_continue("sign-off failed"):
            self._store.worker_gone(self.worker_id)

    def _slot_loop(self) -> None:
        while not self._draining.is_set():
            with self._log_and_continue("slot interrupted", pause_seconds=_PAUSE_SECONDS):
                if not self._run_one():
                    self._wake_ups.get()

    def _run_one(self) -> bool:
        """Claim a job and supervise one attempt at it. Return False if no job waits."""
        asked_at = time.monotonic()
        settings = self._settings
        claim = self._store.claim(
            self.worker_id,
            settings.lease_seconds,
            settings.worker_threads,
            settings.worker_device_class,
            memory_bytes=None if self._measurement is None else self._measurement.memory_bytes,
        )
        if claim is None:
            return False
        with self._busy(), about(job_id=claim.job.id, attempt=claim.job.attempt, traceparent=claim.job.traceparent):
            log.info("job claimed", extra={"fence": claim.fence})
            count_claim(claim)
            with self._log_and_continue("attempt interrupted", pause_seconds=_PAUSE_SECONDS):
                self._supervisor.supervise(claim, claimed_at=asked_at)
        return True

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """End a measurement, and begin none before the block is left."""
        with self._counting:
            self._num_busy += 1
        if self._measurement is not None:
            self._measurement.interrupt()
        try:
            yield
        finally:
            with self._counting:
                self._num_busy -= 1

    def _maintenance_loop(self) -> None:
        pause_seconds = self._settings.sweep_seconds
        if self._notify is None:
            pause_seconds = min(pause_seconds, POLL_SECONDS)
        while not self._draining.is_set():
            with self._log_and_continue("round cut short"):
                self._maintain()
            self._wake_all()
            self._draining.wait(pause_seconds)

    def _maintain(self) -> None:
        """Report this worker as alive, take back the jobs of dead workers, notify workers of waiting jobs, clean up."""
        settings, measurement = self._settings, self._measurement
        self._store.worker_seen(
            self.worker_id,
            host=socket.gethostname(),
            slots=settings.worker_slots,
            device=settings.worker_device,
            speed=None if measurement is None else measurement.speed,
            memory_bytes=None if measurement is None else measurement.memory_bytes,
        )
        found = self._store.sweep()
        if self._notify is not None:
            sent = itertools.starmap(self._notify, found.notify.items())
            DOORBELLS_RERUNG.inc(sum(1 for _ in itertools.takewhile(bool, sent)))  # stop at the first that fails
        if measurement is not None and not self._num_busy:
            measurement.start()
        if time.monotonic() >= self._next_cleanup:
            self._next_cleanup = time.monotonic() + _CLEANUP_SECONDS
            remove_stale_attempts(settings, self._store)
            self._artifacts.sweep_temporary(_TEMPORARY_FILE_SECONDS)

    def _wake_all(self) -> None:
        for _ in range(self._settings.worker_slots):
            self.wake()

    @contextmanager
    def _log_and_continue(self, failure: str, *, pause_seconds: float = 0.0) -> Iterator[None]:
        """Log whatever goes wrong inside the block as `failure`, then pause: the thread must go on.

        A job whose attempt fails here goes back to the queue when its lease ends.
        """
        try:
            yield
        except LedgerError as error:
            log.warning("%s: the ledger does not answer", failure, extra={"reason": str(error)})
            self._draining.wait(pause_seconds)
        except Exception:
            log.exception(failure)
            self._draining.wait(pause_seconds)
