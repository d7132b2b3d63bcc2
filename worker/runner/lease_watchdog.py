"""The runner's dead-man's switch: without a fresh lease from its supervisor it ends, whatever it is doing.

The same line carries the supervisor's wish that it stop, which becomes the signal SIGTERM.
"""

import json
import os
import select
import signal
import threading
import time

LEASE_OVER = 75  # exit status: the last lease that the supervisor confirmed is over
ORPHANED = 76  # exit status: the supervisor has closed its end
_READ_BYTES = 4096


class DeadMansSwitch(threading.Thread):
    """Reads `{"type": "lease", "until": t}`, t on the monotonic clock, and ends the process at the last t.

    A supervisor that was stopped with SIGSTOP, or cut off from the ledger, renews nothing: its runner must be gone
    before another worker may take the job.
    """

    def __init__(self, descriptor: int, until: float) -> None:
        super().__init__(name="dead-mans-switch", daemon=True)
        self._descriptor = descriptor
        self._until = until
        self._pending = b""

    def check(self) -> None:
        """End the process if the lease is over: asked at every step too, for the case that this thread starves."""
        if time.monotonic() >= self._until:
            os._exit(LEASE_OVER)

    def run(self) -> None:
        """Until the end of the process. A lease that came while it was starting is read before it is missed."""
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
            told = json.loads(line)
            if told["type"] == "stop":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                self._until = float(told["until"])
