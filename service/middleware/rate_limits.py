"""ASGI middleware: limits the number of requests of a tenant in a fixed window of time.

Requests without a key are counted by address. Every answer has the headers `RateLimit` and `RateLimit-Policy`
(draft-ietf-httpapi-ratelimit-headers-10) with what is left of the window. With a Redis all processes share counters.
While Redis does not answer, each process counts for itself; a request is never refused because a counter is missing.
"""

import asyncio
import ipaddress
import logging
import math
import time
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from limits import RateLimitItem, WindowStats, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter as SharedWindows
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter as OwnWindows
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.identity import Caller
from jobs.metrics import RATE_LIMIT_FAILURES, RATE_LIMITED
from jobs.settings import Settings
from service.middleware.authentication import reject
from service.problems.errors import RateLimited

log = logging.getLogger(__name__)

EXEMPT = {"/healthz", "/readyz", "/metrics"}
"""Paths that the operator's machines poll; they are not limited."""

ANSWER_SECONDS = 0.25  # how long a request waits for the shared counters
AWAY_SECONDS = 5.0  # how long Redis is not asked after a failure
KEY_PREFIX = "dfkd.rate"


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit and its name, as clients see it."""

    name: str
    limit: RateLimitItem

    @property
    def header(self) -> str:
        """The value of the RateLimit-Policy header."""
        return f'"{self.name}";q={self.limit.amount};w={self.limit.get_expiry()}'


class RateLimitMiddleware:
    """Runs inside `AuthenticationMiddleware`, which stores the caller in the request's state."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self._all = _policy("requests", settings.rate_limit)
        self._posts = _policy("posts", settings.rate_limit_posts) or self._all
        self._counters = Counters(settings.rate_limit_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        policy = None
        if scope["type"] == "http" and scope["path"] not in EXEMPT:
            policy = self._posts if scope["method"] == "POST" else self._all
        if policy is None:
            await self.app(scope, receive, send)
            return
        taken, window = await self._counters.take(policy, whose(scope))
        left_seconds = max(1, math.ceil(window.reset_time - time.time()))
        headers = {
            "ratelimit-policy": policy.header,
            "ratelimit": f'"{policy.name}";r={max(0, window.remaining)};t={left_seconds}',
        }

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        if taken:
            await self.app(scope, receive, send_with_limits)
            return
        RATE_LIMITED.labels(policy.name).inc()
        await reject(_refusal(policy, left_seconds), Request(scope), receive, send_with_limits)


class Counters:
    """Counts requests in the shared windows of Redis, or else in windows of this process."""

    def __init__(self, url: str | None) -> None:
        self._own = OwnWindows(MemoryStorage())
        self._shared = None if url is None else SharedWindows(_redis(url))
        self._ask_again_at = 0.0

    async def take(self, policy: Policy, whose: str) -> tuple[bool, WindowStats]:
        """Count one request; returns whether it is within the limit, and the state of the window."""
        if self._shared is not None and time.monotonic() >= self._ask_again_at:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    taken = await self._shared.hit(policy.limit, policy.name, whose)
                    return taken, await self._shared.get_window_stats(policy.limit, policy.name, whose)
            except (TimeoutError, OSError, RedisError) as error:
                self._ask_again_at = time.monotonic() + AWAY_SECONDS
                RATE_LIMIT_FAILURES.inc()
                log.warning("requests are counted by each process for itself", extra={"reason": str(error)})
        taken = self._own.hit(policy.limit, policy.name, whose)
        return taken, self._own.get_window_stats(policy.limit, policy.name, whose)


def whose(scope: Scope) -> str:
    """Return the name of the counter: the tenant, or the client's address if there is no key."""
    caller: Caller | None = scope["state"]["caller"]
    if caller is not None and caller.key_id is not None:
        return f"tenant {caller.tenant}"
    client = scope.get("client")
    return f"address {_neighbourhood(client[0]) if client else 'unknown'}"


def _neighbourhood(address: str) -> str:
    """Return the address; for IPv6 its /64 network, because one client can use all addresses of its /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def _policy(name: str, text: str) -> Policy | None:
    return Policy(name, parse(text)) if text else None


def _refusal(policy: Policy, left_seconds: int) -> RateLimited:
    return RateLimited(
        f"More than {policy.limit.amount} {policy.name} in {policy.limit.get_expiry()} seconds.",
        hint="Wait as long as Retry-After says; while a job is live its answer says when to ask again.",
        headers={"Retry-After": str(left_seconds)},
        limit=policy.limit.amount,
    )


def _redis(url: str) -> RedisStorage:
    """Counters in the Redis at a URL in the form of DFKD_BROKER_URL."""
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        url = f"redis+unix://{parts.path}?db={parse_qs(parts.query).get('virtual_host', ['0'])[0]}"
    return RedisStorage(
        f"async+{url}",
        implementation="redispy",
        key_prefix=KEY_PREFIX,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]  # passed on to redis-py as it is
    )
