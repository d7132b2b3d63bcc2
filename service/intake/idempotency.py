"""Idempotency-Key: a request that is repeated with its key gets the stored response and is not carried out again.

A request takes its key before its body is read. Two requests are the same if route and content are equal: the spec with
its defaults filled in and the digest of the teacher, not the bytes that were sent. Refusals are not stored.
"""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import Depends, Header, Request, Response

from jobs.errors import LedgerError
from jobs.lifecycle.idempotency import KeyLease, ResponseRecorder, StoredResponse
from service.dependencies import AppContext, Context
from service.problems.errors import FieldError, IdempotencyKeyReused, ValidationFailed

T = TypeVar("T")

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
_RENEWALS = 3  # per lease time
_NOT_KEPT = {"content-length"}


class IdempotentRequest:
    """One POST with or without a key. `response` is set once the ledger has recorded the outcome."""

    def __init__(self, route: str, lease: KeyLease | None, answered: StoredResponse | None) -> None:
        self._response: Response | None = None
        self._route = route
        self._lease = lease
        self._answered = answered
        self._fingerprint = ""

    @property
    def was_answered(self) -> bool:
        """Whether some request with this key was answered before; `replay` checks that it was the same request."""
        return self._answered is not None

    def replay(self, **what: Any) -> bool:  # Any: JSON
        """Fix what the request asks for; True if it was answered before, then `response` is the stored response.

        Raises:
            IdempotencyKeyReused: the key was used for a different request.
        """
        text = json.dumps({"route": self._route, **what}, sort_keys=True, ensure_ascii=True, allow_nan=False)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        if self._answered is None:
            return False
        if self._answered.fingerprint != self._fingerprint:
            raise IdempotencyKeyReused(
                "This key was used for another request.",
                hint="Make a new key for every new request; send an old one only with exactly what it was made for.",
                errors=[FieldError("", "belongs to another request", parameter=HEADER.lower())],
            )
        self._response = _response_from(self._answered.text)
        return True

    def recorder(self, respond: Callable[[T], Response]) -> ResponseRecorder[T]:
        """The recorder with which the ledger stores the response in the transaction that causes the outcome."""

        def answer(outcome: T) -> str:
            self._response = respond(outcome)
            return _text_from(self._response)

        return ResponseRecorder(answer, self._lease, self._fingerprint)

    @property
    def response(self) -> Response:
        """The response, which must be there by now."""
        assert self._response is not None
        return self._response


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
    answered = await to_thread.run_sync(context.store.keys.hold, lease, context.settings.request_lease_seconds)
    if answered is not None:
        yield IdempotentRequest(route, None, answered)
        return
    try:
        async with _renewing(context, lease):
            yield IdempotentRequest(route, lease, None)
    except BaseException:
        await to_thread.run_sync(_release, context, lease)
        raise


Idempotency = Annotated[IdempotentRequest, Depends(idempotent_request)]


def key_of(values: list[str]) -> str:
    """The key in the header, plain or as a quoted string (RFC 8941).

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
    """Release the key, so that a refused request can be repeated at once; a stored response stays."""
    try:
        context.store.keys.let_go(lease)
    except LedgerError:
        log.warning("a key stays taken until its lease ends", exc_info=True)


def _text_from(response: Response) -> str:
    headers = {name: value for name, value in response.headers.items() if name not in _NOT_KEPT}
    body = bytes(response.body).decode()
    return json.dumps({"status": response.status_code, "headers": headers, "body": body})


def _response_from(text: str) -> Response:
    kept = json.loads(text)
    headers: Mapping[str, str] = {**kept["headers"], REPLAYED: "true"}
    return Response(kept["body"], status_code=kept["status"], headers=dict(headers))
