"""The workshop: slots that claim and supervise, and a thread that makes rounds. Needs the ledger, not the broker."""

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
from worker.metrics import note_claim
from worker.runner.process import RUNNER_COMMAND
from worker.supervision.supervisor import Supervisor, remove_stale_workspaces

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # without a broker
_PAUSE_SECONDS = 1.0
_TIDY_SECONDS = 60.0
_TEMPORARY_SECONDS = 86400.0
_EXIT_SECONDS = 5.0


class Workshop:
    """One worker process: an identity that is new with every start, `worker_slots` slots, and the rounds."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        artifacts: ArtifactStore,
        *,
        ring: Callable[[str, DeviceClass], bool] | None = None,
        command: Sequence[str] = RUNNER_COMMAND,
    ) -> None:
        self.worker_id = uuid.uuid4().hex
        self._settings = settings
        self._store = store
        self._artifacts = artifacts
        self._ring = ring
        self._draining = threading.Event()
        self._looks: queue.Queue[None] = queue.Queue(settings.worker_slots)
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")  # lives as long as the process
        self._supervisor = Supervisor(
            store,
            artifacts,
            settings,
            worker_id=self.worker_id,
            spawner=self._spawner,
            draining=self._draining,
            command=command,
        )
        self._slots = [
            threading.Thread(target=self._work, name=f"slot-{number}") for number in range(settings.worker_slots)
        ]
        self._rounds = threading.Thread(target=self._make_rounds, name="rounds")
        self._next_tidy = 0.0

    def start(self) -> None:
        """Open the slots."""
        for thread in (*self._slots, self._rounds):
            thread.start()

    def look(self) -> None:
        """Wake a free slot to look at the table; returns at once."""
        with suppress(queue.Full):
            self._looks.put_nowait(None)

    def drain(self) -> None:
        """Claim nothing any more; stop the runners with a checkpoint, give their jobs back, leave."""
        self._draining.set()
        for _ in self._slots:
            self.look()
        deadline = time.monotonic() + self._settings.stop_grace_seconds + _EXIT_SECONDS
        for thread in (*self._slots, self._rounds):
            thread.join(max(0.0, deadline - time.monotonic()))
        self._spawner.shutdown(wait=False)
        self._guarded(lambda: self._store.worker_gone(self.worker_id))

    def _work(self) -> None:
        """One slot, for as long as the process lives."""
        while not self._draining.is_set():
            with self._stumbling():
                if not self._take_one():
                    self._looks.get()

    def _take_one(self) -> bool:
        """Claim a job and see it through; False where there is none."""
        asked_at = time.monotonic()
        settings = self._settings
        claim = self._store.claim(
            self.worker_id, settings.lease_seconds, settings.worker_threads, settings.worker_device_class
        )
        if claim is None:
            return False
        with about(job_id=claim.job.id, attempt=claim.job.attempt, traceparent=claim.job.traceparent):
            log.info("job claimed", extra={"fence": claim.fence})
            note_claim(claim)
            with self._stumbling():
                self._supervisor.supervise(claim, claimed_at=asked_at)
        return True

    @contextmanager
    def _stumbling(self) -> Iterator[None]:
        """A slot goes on whatever happens inside."""
        try:
            yield
        except LedgerError as error:
            log.warning("the ledger does not answer", extra={"reason": str(error)})
            self._draining.wait(_PAUSE_SECONDS)
        except Exception:
            log.exception("a slot stumbled; what it held goes back to the queue when its lease ends")
            self._draining.wait(_PAUSE_SECONDS)

    def _make_rounds(self) -> None:
        pause_seconds = self._settings.sweep_seconds
        if self._ring is None:
            pause_seconds = min(pause_seconds, POLL_SECONDS)
        while not self._draining.is_set():
            self._guarded(self._round)
            for _ in self._slots:
                self.look()
            self._draining.wait(pause_seconds)

    def _round(self) -> None:
        """Say that we live, take back what dead workers held, ring for what waits."""
        settings = self._settings
        self._store.worker_seen(
            self.worker_id, host=socket.gethostname(), slots=settings.worker_slots, device=settings.worker_device
        )
        found = self._store.sweep()
        if self._ring is not None:
            rings = itertools.starmap(self._ring, found.ring.items())
            DOORBELLS_RERUNG.inc(sum(1 for _ in itertools.takewhile(bool, rings)))  # stops at the first that fails
        if time.monotonic() >= self._next_tidy:
            self._next_tidy = time.monotonic() + _TIDY_SECONDS
            remove_stale_workspaces(settings, self._store)
            self._artifacts.sweep_temporary(_TEMPORARY_SECONDS)

    def _guarded(self, act: Callable[[], object]) -> None:
        """The rounds go on whatever happens in one of them."""
        try:
            act()
        except LedgerError as error:
            log.warning("round cut short: the ledger does not answer", extra={"reason": str(error)})
        except Exception:
            log.exception("round failed")
