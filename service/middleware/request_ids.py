"""ASGI middleware: gives every request an id for its reply and its log lines, and answers unexpected exceptions."""

import logging
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.log_context import about
from service.problems.handlers import problem_response
from service.problems.table import row_for

log = logging.getLogger(__name__)

HEADER = "x-request-id"


class RequestIdMiddleware:
    """Adds `X-Request-ID` to the reply and turns an unhandled exception into a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        state: MutableMapping[str, Any] = scope.setdefault("state", {})  # Any: ASGI's own type of a request's state
        state["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message["headers"],
                    (HEADER.encode(), request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        with about(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception as error:
                log.exception("request failed", extra={"path": scope["path"]})
                state["problem"] = row_for(error).code
                if started:
                    raise  # a part of the reply is sent: only closing the connection can tell the client
                await problem_response(error, request_id=request_id)(scope, receive, send_with_id)
