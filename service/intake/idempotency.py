"""Idempotency-Key: a request that is repeated with its key gets the same response and is not carried out again.

A request takes its key before its body is read. Two requests are the same if route and content are equal: the spec with
its defaults filled in and the digest of the teacher, not the bytes that were sent. Refusals are not stored.

The ledger stores the outcome of a request, a value, in the transaction that causes it. The response is rendered from
that value after the commit, and rendered again when the request is repeated. Its status and the time that it tells are
fixed before the transaction and stored beside the outcome, so that both renderings are equal.
"""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import Depends, Header, Request, Response
from pydantic import TypeAdapter

from jobs.errors import LedgerError
from jobs.lifecycle.idempotency import KeyLease, OutcomeRecorder, StoredOutcome
from service.dependencies import AppContext, Context
from service.problems.errors import FieldError, IdempotencyKeyReused, ValidationFailed

T = TypeVar("T")

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
_RENEWALS = 3  # per lease time
_OLDER_PROCESSES_REPLY: dict[str, Any] = {"status": 503, "headers": {"retry-after": "2"}, "body": ""}
"""How an API process of an older version, which cannot render an outcome, replies to a repeated request."""


class IdempotentRequest:
    """One POST with or without a key."""

    def __init__(self, route: str, lease: KeyLease | None, stored: StoredOutcome | None) -> None:
        self._route = route
        self._lease = lease
        self._stored = stored
        self._fingerprint = ""
        self._recorder: OutcomeRecorder[Any] | None = None

    @property
    def was_answered(self) -> bool:
        """Whether some request with this key was answered before; `repeats` checks that it was the same request."""
        return self._stored is not None

    def repeats(self, **what: Any) -> bool:  # Any: JSON
        """Fix what the request asks for; True if the same request was carried out before.

        Raises:
            IdempotencyKeyReused: the key was used for a different request.
        """
        text = json.dumps({"route": self._route, **what}, sort_keys=True, ensure_ascii=True, allow_nan=False)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        if self._stored is None:
            return False
        if self._stored.fingerprint != self._fingerprint:
            raise IdempotencyKeyReused(
                "This key was used for another request.",
                hint="Make a new key for every new request; send an old one only with exactly what it was made for.",
                errors=[FieldError("", "belongs to another request", parameter=HEADER.lower())],
            )
        return True

    def recorder(self, *, status: int) -> OutcomeRecorder[Any]:
        """Return the recorder that takes the outcome out of the ledger's transaction. `status`: of the response."""
        reply = {"status": status, "at": datetime.now(UTC).isoformat()}
        self._recorder = OutcomeRecorder(self._lease, self._fingerprint, {**_OLDER_PROCESSES_REPLY, "reply": reply})
        return self._recorder

    def response(self, outcome_type: TypeAdapter[T], render: Callable[[T, int, datetime], Response]) -> Response:
        """Return the response, after the commit or for a repeated request. `render` gets outcome, status and time."""
        if self._stored is not None:
            stored = json.loads(self._stored.text)
            if "outcome" in stored:
                outcome = outcome_type.validate_json(json.dumps(stored["outcome"]))
                response = _rendered(render, outcome, stored["reply"])
            else:  # a whole response, as older versions stored it
                response = Response(stored["body"], status_code=stored["status"], headers=stored["headers"])
            response.headers[REPLAYED] = "true"
            return response
        assert self._recorder is not None  # the ledger has committed the outcome
        assert self._recorder.outcome is not None
        return _rendered(render, self._recorder.outcome, self._recorder.note["reply"])


async def idempotent_request(
    request: Request,
    context: Context,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Optional, 1 to 255 visible ASCII characters, new for every new request: the same request "
            "under the same key is done once, and answered alike for a day."
        ),
    ] = None,
) -> AsyncIterator[IdempotentRequest]:
    """Takes the request's key, if it has one, and keeps its lease until the request is over.

    Raises:
        RequestInProgress: another request with this key is being answered.
    """
    route = f"{request.method} {request.scope['path']}"
    if idempotency_key is None:
        yield IdempotentRequest(route, None, None)
        return
    lease = context.store.keys.new_lease(key_of(request.headers.getlist(HEADER)))
    stored = await to_thread.run_sync(context.store.keys.acquire, lease, context.settings.request_lease_seconds)
    if stored is not None:
        yield IdempotentRequest(route, None, stored)
        return
    try:
        async with _renewing(context, lease):
            yield IdempotentRequest(route, lease, None)
    except BaseException:
        await to_thread.run_sync(_release, context, lease)
        raise


Idempotency = Annotated[IdempotentRequest, Depends(idempotent_request)]


def key_of(values: list[str]) -> str:
    """Return the key in the header, plain or as a quoted string (RFC 8941).

    Raises:
        ValidationFailed: the header is no valid key.
    """
    text = values[0].strip() if len(values) == 1 else ""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not KEY.fullmatch(text):
        error = FieldError("", "must be one key of 1 to 255 visible ASCII characters", parameter=HEADER.lower())
        raise ValidationFailed("The idempotency key is not valid.", errors=[error])
    return text


@asynccontextmanager
async def _renewing(context: AppContext, lease: KeyLease) -> AsyncIterator[None]:
    """Renews the lease while the request runs: an upload may take longer than one lease."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(context.settings.request_lease_seconds / _RENEWALS)
            with suppress(LedgerError):
                await to_thread.run_sync(context.store.keys.renew, lease, context.settings.request_lease_seconds)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _release(context: AppContext, lease: KeyLease) -> None:
    """Release the key, so that a refused request can be repeated at once; a stored outcome stays."""
    try:
        context.store.keys.release(lease)
    except LedgerError:
        log.warning("a key stays taken until its lease ends", exc_info=True)


def _rendered(render: Callable[[T, int, datetime], Response], outcome: T, reply: Mapping[str, Any]) -> Response:
    return render(outcome, reply["status"], datetime.fromisoformat(reply["at"]))
