"""The runner's lease watchdog: it ends the process when the supervisor no longer renews the lease.

The pipe that carries the leases also carries the supervisor's request to stop, which becomes the signal SIGTERM.
"""

import json
import os
import select
import signal
import threading
import time

LEASE_OVER = 75  # exit status: the last lease that the supervisor confirmed is over
ORPHANED = 76  # exit status: the supervisor has closed its end of the pipe
_READ_BYTES = 4096


class LeaseWatchdog(threading.Thread):
    """Reads `{"type": "lease", "until": t}`, t on the monotonic clock, and ends the process at the latest t.

    A supervisor that was stopped with SIGSTOP, or cut off from the ledger, renews nothing. Its runner must be gone
    before another worker may take the job.
    """

    def __init__(self, descriptor: int, until: float) -> None:
        super().__init__(name="lease-watchdog", daemon=True)
        self._descriptor = descriptor
        self._until = until
        self._pending = b""

    def check(self) -> None:
        """End the process if the lease is over. The runner calls this at every step, in case this thread starves."""
        if time.monotonic() >= self._until:
            os._exit(LEASE_OVER)

    def run(self) -> None:
        """Watch until the process ends. A renewal that is in the pipe already is read before the lease is checked."""
        while True:
            remaining_seconds = max(0.0, self._until - time.monotonic())
            if not select.select([self._descriptor], [], [], remaining_seconds)[0]:
                self.check()
                continue
            chunk = os.read(self._descriptor, _READ_BYTES)
            if not chunk:
                os._exit(ORPHANED)
            self._read(chunk)

    def _read(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["type"] == "stop":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                self._until = float(message["until"])
