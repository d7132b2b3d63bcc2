"""ASGI middleware: refuses requests with too many headers, contradictory headers or no valid Host."""

import re

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems.errors import ApiError, BadRequest, HeadersTooLarge
from service.problems.handlers import error_response

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024  # names and values together
_VERSIONS = {"1.0", "1.1", "2", "3"}
_HOST = re.compile(r"[A-Za-z0-9._~%-]+(:\d{0,5})?|\[[0-9A-Fa-f:.%]+\](:\d{0,5})?")


class HeaderChecksMiddleware:
    """Runs inside `RequestIdMiddleware`, so that a refusal has a request id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
            return
        await error_response(Request(scope), error)(scope, receive, send)


def refusal(scope: Scope) -> ApiError | None:
    """Return the reason to refuse the request; None if its headers are valid."""
    lines = scope["headers"]
    if len(lines) > MAX_HEADERS or sum(len(name) + len(value) for name, value in lines) > MAX_HEADER_BYTES:
        return HeadersTooLarge(f"At most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes in all are read.")
    if scope["http_version"] not in _VERSIONS:
        return BadRequest("HTTP of this version is not spoken here.")
    headers = Headers(scope=scope)
    if "content-length" in headers and "transfer-encoding" in headers:
        return BadRequest("Content-Length and Transfer-Encoding contradict each other.")
    if not _HOST.fullmatch(headers.get("host", "none")):
        return BadRequest("The Host header names no host.")
    return None
