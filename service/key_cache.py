"""A cache of all valid API keys, read from the ledger every few seconds instead of for every request.

Because all keys are cached, an invented key causes at most one read a second. A revocation takes effect within
FRESH_SECONDS. While the ledger does not answer, the cached keys stay valid for KEPT_SECONDS; after that no
key is accepted.
"""

import asyncio
import hmac
import logging
import math
import time

from anyio import CapacityLimiter, to_thread

from jobs.identity import Caller
from jobs.tenancy.api_keys import TOKEN, ApiKeys, Credential, Usable, digest_of

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0
KEPT_SECONDS = 45.0
STRANGE_SECONDS = 1.0  # the age at which an unknown key causes a read: it may have been created just now
PATIENCE_SECONDS = 0.25  # how long a request waits for a read while the cached keys are still valid
USE_SECONDS = 3600.0  # the use of a key is recorded once in this time

_NOBODY = digest_of(b"")


class KeyCache:
    """For use in one event loop."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys
        self._known = Usable({}, ever=False)
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None
        self._one_at_a_time = CapacityLimiter(1)  # its own: waiting requests must not take its thread
        self._used_at: dict[str, float] = {}
        self._used: set[str] = set()

    async def caller(self, token: bytes) -> Caller | None:
        """Return the caller that the key belongs to; None if the key is not valid.

        Raises:
            LedgerUnavailable: the keys could not be read for KEPT_SECONDS.
        """
        match = TOKEN.fullmatch(token)
        key_id, secret = (match[1].decode(), match[2]) if match else ("", b"")
        found = await self._credential(key_id)
        right = hmac.compare_digest(digest_of(secret), _NOBODY if found is None else found.sha256)
        if found is None or not right:
            return None
        self._note(key_id)
        return found.caller

    async def still_valid(self, caller: Caller) -> bool:
        """Return whether the key of an earlier request is still valid."""
        return caller.key_id is None or await self._credential(caller.key_id) is not None

    async def in_use(self) -> bool:
        """Return whether there is or ever was a key."""
        return (await self._refreshed(FRESH_SECONDS)).ever

    def take_used(self) -> set[str]:
        """Return the ids of keys that were used since the last call."""
        used, self._used = self._used, set()
        return used

    async def _credential(self, key_id: str) -> Credential | None:
        found = (await self._refreshed(FRESH_SECONDS)).by_id.get(key_id)
        if found is None and key_id:
            found = (await self._refreshed(STRANGE_SECONDS)).by_id.get(key_id)
        if found is None or (found.left_seconds is not None and self._age() >= found.left_seconds):
            return None
        return found

    async def _refreshed(self, fresh_seconds: float) -> Usable:
        """Return the cached keys, read again if they are older than `fresh_seconds`."""
        if self._age() > fresh_seconds:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
                self._reading.add_done_callback(_complain)
            reading = self._reading
            await asyncio.wait({reading}, timeout=None if self._age() > KEPT_SECONDS else PATIENCE_SECONDS)
            if self._age() > KEPT_SECONDS:
                reading.result()
        return self._known

    async def _read(self) -> None:
        begun = time.monotonic()
        self._known = await to_thread.run_sync(self._keys.usable, limiter=self._one_at_a_time)
        self._read_at = begun

    def _age(self) -> float:
        return time.monotonic() - self._read_at

    def _note(self, key_id: str) -> None:
        if time.monotonic() - self._used_at.get(key_id, -math.inf) > USE_SECONDS:
            self._used_at[key_id] = time.monotonic()
            self._used.add(key_id)


def _complain(reading: asyncio.Task[None]) -> None:
    if not reading.cancelled() and (error := reading.exception()) is not None:
        log.warning("the API keys could not be read", exc_info=error)
