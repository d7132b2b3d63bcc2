"""ASGI middleware: closes the connection when we reply before reading the whole body.

Without it the server would read the rest of the upload after the reply, for as long as the client sends. Closing at
once would reset the connection, and the client might lose the reply. So the middleware reads at most LINGER_BYTES more,
for at most LINGER_SECONDS, and then closes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALL_BYTES = 64 * 1024  # a declared body of this size is read to its end: that is cheaper than a new connection
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0


class EarlyResponseMiddleware:
    """Closes the connection when we reply before reading the whole body. This is the outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if _is_small(headers):
            await self.app(scope, receive, send)
            return
        body = _Body(receive, waits=headers.get("expect", "").lower() == "100-continue")
        await self.app(scope, body.receive, _ending(send, body))


class _Body:
    """The body of one request; `over` says whether all of it was received."""

    def __init__(self, receive: Receive, *, waits: bool) -> None:
        self.over = False
        self._receive = receive
        self._asked = not waits

    async def receive(self) -> Message:
        self._asked = True
        message = await self._receive()
        self.over = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def linger(self) -> None:
        """Read on within the limits. A client that waits for `100 Continue` was never asked and has sent nothing."""
        if not self._asked:
            return
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and not self.over:
                    left -= len((await self.receive()).get("body", b""))


def _is_small(headers: Headers) -> bool:
    declared = headers.get("content-length", "0")
    return "transfer-encoding" not in headers and declared.isdigit() and int(declared) <= SMALL_BYTES


def _ending(send: Send, body: _Body) -> Callable[[Message], Awaitable[None]]:
    closing = False

    async def send_and_end(message: Message) -> None:
        nonlocal closing
        if message["type"] == "http.response.start" and not body.over:
            closing = True
            others = [header for header in message["headers"] if header[0] != b"connection"]
            message["headers"] = [*others, (b"connection", b"close")]
        if closing and message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await body.linger()
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return send_and_end
