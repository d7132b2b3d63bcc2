"""ASGI middleware: identifies the caller by the API key, checks the key's scope and the announced size of the body.

All decisions are made by the headers, before a byte of the body is read. Every path outside the list of public paths
needs a key, whether there is a route for the path or not.
"""

import ipaddress
import re
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.errors import LedgerError
from jobs.identity import ANONYMOUS, Caller
from jobs.identity import Scope as KeyScope
from jobs.log_context import about
from jobs.settings import Settings
from service.intake.bodies import check_headers
from service.key_cache import KeyCache
from service.problems.errors import ApiError, InsufficientScope, Unauthenticated
from service.problems.handlers import error_response

PUBLIC = re.compile(r"/|/healthz|/readyz|/openapi\.json|/docs|/docs/oauth2-redirect|/redoc|/problems/[^/]+")
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
READING_POSTS = {("POST", "/plans")}
"""Requests with a body that change nothing."""

_BEARER = re.compile(rb"bearer +([\x21-\x7e]+)", re.IGNORECASE)
_CHALLENGE = 'Bearer realm="dfkd"'


def scope_for(method: str, path: str) -> KeyScope | None:
    """Return the scope that a request needs; None if the path is public."""
    if method in SAFE_METHODS and PUBLIC.fullmatch(path):
        return None
    if path == "/metrics":
        return KeyScope.METRICS
    reads = method in SAFE_METHODS or (method, path) in READING_POSTS
    return KeyScope.JOBS_READ if reads else KeyScope.JOBS_WRITE


class AuthenticationMiddleware:
    """Stores the caller in the request's state, or rejects the request and closes the connection."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        state: MutableMapping[str, Any] = scope["state"]  # Any: ASGI's own type of a request's state
        try:
            caller = await self._admitted(request)
            check_headers(request, self._settings)
        except (ApiError, LedgerError) as error:
            await reject(error, request, receive, send)
            return
        state["caller"] = caller
        with about(tenant=caller and caller.tenant, key_id=caller and caller.key_id):
            await self.app(scope, receive, send)

    async def _admitted(self, request: Request) -> Caller | None:
        """Return the caller; None if the path is public.

        Raises:
            Unauthenticated: there is no valid key.
            InsufficientScope: the key lacks the scope.
            LedgerUnavailable: the keys could not be read.
        """
        needed = scope_for(request.method, request.scope["path"])  # as the router sees it, unlike `request.url`
        if needed is None:
            return None
        caller = await self._caller(request, request.app.state.context.key_cache)
        if caller is None:
            raise Unauthenticated(
                "There is no valid API key with this request.",
                hint="Send `Authorization: Bearer KEY`; `dfkd` and the Python client take KEY from DFKD_API_KEY.",
                headers={"WWW-Authenticate": _CHALLENGE},
            )
        if needed not in caller.scopes:
            raise InsufficientScope(
                f"This needs a key with the scope {needed}.",
                headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{needed}"'},
            )
        return caller

    async def _caller(self, request: Request, key_cache: KeyCache) -> Caller | None:
        if self._settings.auth == "off":
            return ANONYMOUS
        if self._settings.auth == "auto" and not await key_cache.in_use():
            return ANONYMOUS if is_loopback(_own_address(request)) else None
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        match = _BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
        return await key_cache.caller(match[1] if match else b"")


def is_loopback(address: str) -> bool:
    """True if only processes of this machine can connect to this local address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket, or no address
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _own_address(request: Request) -> str:
    """Return the local address that received the request."""
    server = request.scope.get("server")
    return str(server[0]) if server else ""


async def reject(error: Exception, request: Request, receive: Receive, send: Send) -> None:
    """Answer before the body is read and close. `early_response` makes sure that the client receives the answer."""
    response = error_response(request, error)
    response.headers["Connection"] = "close"
    await response(request.scope, receive, send)
