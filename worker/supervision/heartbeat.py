"""The supervisor's heartbeat: renews the lease of one claim from a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context

from jobs.errors import LedgerError
from jobs.ledger.leases import Claim
from jobs.settings import Settings
from jobs.store import Store

log = logging.getLogger(__name__)

SELF_FENCE = 0.75  # of a lease without a confirmed heartbeat: stop, well before another worker may start


class Heartbeat(threading.Thread):
    """Renews the lease, learns why to stop, knows when the last renewal was confirmed (monotonic clock)."""

    def __init__(self, store: Store, claim: Claim, *, settings: Settings, confirmed_at: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.fenced_out = False
        self.cancel_requested = claim.job.cancel_requested
        self.pause_requested = claim.job.pause_requested
        self.over_quota = False
        self._store = store
        self._claim = claim
        self._settings = settings
        self._confirmed_at = confirmed_at
        self._on_lease: Callable[[float], None] | None = None
        self._stopped = threading.Event()
        self._context = copy_context()  # of whom its lines are

    @property
    def lease_until(self) -> float:
        """When the lease ends that the ledger confirmed last: counted from before we asked, so never too late."""
        return self._confirmed_at + self._settings.lease_seconds

    @property
    def overdue(self) -> bool:
        """Whether so much of the lease has gone by unconfirmed that the runner has to stop."""
        return time.monotonic() - self._confirmed_at > SELF_FENCE * self._settings.lease_seconds

    def tell(self, on_lease: Callable[[float], None] | None) -> None:
        """Call this with every new end of the lease, from the heartbeat's thread; None: nobody."""
        self._on_lease = on_lease
        if on_lease is not None:
            on_lease(self.lease_until)

    def stop(self) -> None:
        """Renew no more."""
        self._stopped.set()

    def run(self) -> None:
        """Until stopped or fenced out; a heartbeat that failed is tried again soon."""
        self._context.run(self._renew)

    def _renew(self) -> None:
        pause_seconds = self._settings.heartbeat_seconds
        while not self.fenced_out and not self._stopped.wait(pause_seconds):
            confirmed = self._beat()
            pause_seconds = self._settings.heartbeat_seconds * (1.0 if confirmed else 0.25)

    def _beat(self) -> bool:
        asked_at = time.monotonic()
        try:
            lease = self._store.heartbeat(self._claim.job.id, self._claim.fence, self._settings.lease_seconds)
        except LedgerError as error:
            log.warning("heartbeat failed", extra={"reason": str(error)})
            return False
        if lease is None:
            self.fenced_out = True
            return False
        self._confirmed_at = asked_at
        self.cancel_requested = lease.cancel_requested
        self.pause_requested = lease.pause_requested
        self.over_quota = lease.over_quota
        on_lease = self._on_lease
        if on_lease is not None:
            on_lease(self.lease_until)
        return True
