"""The supervisor's heartbeat: renews the lease of one claim from a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context

from jobs.errors import LedgerError
from jobs.ledger.leases import Lease
from worker.supervision.context import AttemptContext

log = logging.getLogger(__name__)

SELF_FENCE = 0.75  # the part of a lease after which a runner without a confirmed heartbeat is stopped
_RETRY = 0.25  # the part of a heartbeat's interval after which a failed one is repeated


class Heartbeat(threading.Thread):
    """Renews the lease, learns why the runner has to stop, and knows when the ledger last confirmed the lease."""

    def __init__(self, context: AttemptContext, *, confirmed_at: float) -> None:
        """`confirmed_at` is a time of the monotonic clock, taken before the job was claimed."""
        super().__init__(name="heartbeat", daemon=True)
        job = context.job
        self.fenced_out = False
        self.lease = Lease(cancel_requested=job.cancel_requested, pause_requested=job.pause_requested)
        self._context = context
        self._confirmed_at = confirmed_at
        self._on_renewal: Callable[[float], None] | None = None
        self._stopped = threading.Event()
        self._log_context = copy_context()  # so that this thread's log lines name the job

    @property
    def lease_until(self) -> float:
        """The end of the lease on the monotonic clock, counted from before the request, so never too late."""
        return self._confirmed_at + self._context.settings.lease_seconds

    @property
    def overdue(self) -> bool:
        """Whether the lease has gone unconfirmed for so long that the runner has to stop."""
        return time.monotonic() - self._confirmed_at > SELF_FENCE * self._context.settings.lease_seconds

    def on_renewal(self, callback: Callable[[float], None] | None) -> None:
        """Call `callback` with `lease_until` now, and after every renewal from this thread. None removes it."""
        self._on_renewal = callback
        if callback is not None:
            callback(self.lease_until)

    def stop(self) -> None:
        """Stop renewing."""
        self._stopped.set()

    def run(self) -> None:
        """Renew until stopped or fenced out."""
        self._log_context.run(self._renew)

    def _renew(self) -> None:
        pause_seconds = self._context.settings.heartbeat_seconds
        while not self.fenced_out and not self._stopped.wait(pause_seconds):
            confirmed = self._beat()
            pause_seconds = self._context.settings.heartbeat_seconds * (1.0 if confirmed else _RETRY)

    def _beat(self) -> bool:
        context, asked_at = self._context, time.monotonic()
        try:
            lease = context.store.heartbeat(context.job_id, context.fence, context.settings.lease_seconds)
        except LedgerError as error:
            log.warning("heartbeat failed", extra={"reason": str(error)})
            return False
        if lease is None:
            self.fenced_out = True
            return False
        self._confirmed_at, self.lease = asked_at, lease
        callback = self._on_renewal
        if callback is not None:
            callback(self.lease_until)
        return True
