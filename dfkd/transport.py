"""How the client asks: requests are retried while the service is away, and refusals become exceptions.

Requests are retried when no answer comes, on 502, 503 and 504, and on 429 after Retry-After. Every POST carries an
Idempotency-Key, so that it takes effect once however often it is sent.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from dfkd.credentials import bearer
from dfkd.errors import ClientError, Refused, Unreachable
from dfkd.wire.model import Answer
from dfkd.wire.problem import Problem

A = TypeVar("A", bound=Answer)

LONGEST_PAUSE_SECONDS = 5.0
LONGEST_POST_SECONDS = 10.0  # a POST is retried for at most this long, because a person waits for it
_TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=120.0)  # the inspection of a large teacher takes its time
_AWAY = {502, 503, 504}  # answers of proxies, and of a service without its database: asking again is safe


class Transport:
    """HTTP to one service. Safe to share between threads, as its httpx client is."""

    def __init__(self, url: str, *, api_key: str | None, patience_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self.http = httpx.Client(base_url=self.url, timeout=_TIMEOUT, auth=bearer(api_key))

    def get(
        self, path: str, *, params: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """GET, retried while the service is away."""

        def send() -> httpx.Response:
            return self.send("GET", path, params=list(params), headers=dict(headers or {}))

        return self._retried(send, seconds=self._patience_seconds)

    def post(
        self,
        path: str,
        *,
        content: Callable[[], Iterator[bytes] | bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """POST, retried under one Idempotency-Key while the service is away. Each try calls `content` for its body."""
        headers = {**(headers or {}), "Idempotency-Key": key or str(uuid.uuid4())}

        def send() -> httpx.Response:
            return self.send("POST", path, content=content and content(), headers=headers)

        return self._retried(send, seconds=min(self._patience_seconds, LONGEST_POST_SECONDS))

    def delete(self, path: str) -> httpx.Response:
        """DELETE, sent once."""
        return _checked(self.send("DELETE", path))

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:  # Any: httpx's own options
        """Send one request once; the answer may be a refusal.

        Raises:
            Unreachable: no answer came.
        """
        try:
            return self.http.request(method, path, **options)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"no answer from {self.url}: {_message(error)}") from None

    @contextmanager
    def download(self, path: str) -> Iterator[httpx.Response]:
        """Yield an answer whose body is still to be read.

        Raises:
            Refused: the answer is a refusal.
            Unreachable: no answer came, or it broke off while it was read.
        """
        try:
            with self.http.stream("GET", path, headers={"Accept-Encoding": "identity"}) as response:
                if response.status_code != 200:
                    response.read()
                    raise _refusal(response)
                yield response
        except httpx.TransportError as error:
            raise Unreachable(f"the download from {self.url} broke off: {_message(error)}") from None

    def parse(self, model: type[A], response: httpx.Response) -> A:
        """Return the body of an answer as a `model`.

        Raises:
            Unreachable: it is something else, so it is not this service that answers.
        """
        try:
            return model.model_validate(_json(response))
        except ValueError:
            raise Unreachable(f"what answers at {self.url} is not this service") from None

    def _retried(self, send: Callable[[], httpx.Response], *, seconds: float) -> httpx.Response:
        """Send until an answer settles the request or the time is up. Pauses double, or last as Retry-After says."""
        ends, pause = time.monotonic() + seconds, 0.25
        while True:
            try:
                response = send()
                pause = max(pause, _retry_after_429(response))
                if not _is_temporary(response) or time.monotonic() + pause > ends:
                    return _checked(response)
            except Unreachable:
                if time.monotonic() + pause > ends:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _is_temporary(response: httpx.Response) -> bool:
    """True if the same request may get another answer soon."""
    if response.status_code == 409:
        refusal = _refusal(response)
        return isinstance(refusal, Refused) and refusal.problem.code == "request-in-progress"
    return response.status_code in _AWAY or _retry_after_429(response) > 0


def _retry_after_429(response: httpx.Response) -> float:
    """Seconds for which a rate limit or a quota refuses this client; 0 for other answers, or where none are given."""
    return retry_after(response, otherwise=0.0) if response.status_code == 429 else 0.0


def retry_after(response: httpx.Response, *, otherwise: float) -> float:
    """Return the header Retry-After in seconds, or `otherwise`."""
    text = response.headers.get("retry-after")
    return float(text) if text is not None and text.isdigit() else otherwise


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code < 400:
        return response
    raise _refusal(response)


def _refusal(response: httpx.Response) -> ClientError:
    try:
        return Refused(Problem.model_validate(_json(response)))
    except ValueError:
        return Unreachable(f"{response.url} answered {response.status_code} without saying why")


def _json(response: httpx.Response) -> Any:  # Any: JSON
    return json.loads(response.content)


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__
