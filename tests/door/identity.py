"""B-001 to B-005 and B-027 to B-029: authentication, authorisation and limits."""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.door.door import FORM, FRESH, GOOD, OCTETS, Door, Input, Reply, Send, read_reply, reply_of
from tests.door.guarded import PER_HOUR, WRONG_KEYS, GuardedDoor
from tests.door.routes import NOBODY
from tests.door.transport import chunked
from tests.service.guarded import told

HUGE = 1_000_000_000
READ_BYTES = 4_000_000  # of a body that is refused, at most
PIECE = bytes(65536)


def guarded(send: Callable[[GuardedDoor], Reply]) -> Send:
    """What is sent to a service that has keys."""

    def send_there(door: Door) -> Reply:
        assert isinstance(door, GuardedDoor)
        return send(door)

    return send_there


def entry(row: str, what: str, send: Callable[[GuardedDoor], Reply], *expected: Any, **more: Any) -> Input:
    return Input(row, what, guarded(send), *expected, guarded=True, **more)


def endless(path: str, content_type: str, framing: str) -> Callable[[GuardedDoor], Reply]:
    """An upload of 1 GB without a key: cut off after little of it, and answered."""
    piece = b"10000\r\n" + PIECE + b"\r\n" if "chunked" in framing else PIECE

    def send(door: GuardedDoor) -> Reply:
        num_bytes = 0
        with door.connect() as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            opened.sendall(door.head(f"POST {path} HTTP/1.1", f"Content-Type: {content_type}", framing))
            with suppress(OSError):
                while num_bytes < HUGE:
                    num_bytes += opened.send(piece)
            reply = read_reply(opened)
        assert num_bytes <= READ_BYTES + most_in_buffers()
        assert reply.headers["connection"] == "close"
        return reply

    return send


def most_in_buffers() -> int:
    """What the kernel may have taken without that anybody has read it."""
    return int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2]) + 4 * len(PIECE)


def no_better_than_none(
    headers: Callable[[GuardedDoor], Any] = lambda _: {},
    params: Callable[[GuardedDoor], Mapping[str, str]] = lambda _: {},
) -> Callable[[GuardedDoor], Reply]:
    """A request whose answer is, but for its id, that to a request without a key."""

    def send(door: GuardedDoor) -> Reply:
        answer = door.nobody.get("/jobs", headers=headers(door), params=params(door))
        assert told(answer) == told(door.nobody.get("/jobs"))
        assert answer.headers["connection"] == "close"
        return reply_of(answer)

    return send


def bearing(what: str) -> Callable[[GuardedDoor], Any]:
    return lambda door: {"Authorization": f"Bearer {door.wrong_keys[what]}"}


def headers_of(made: Callable[[str], Any]) -> Callable[[GuardedDoor], Any]:
    return lambda door: made(door.good_key)


def in_query(door: GuardedDoor) -> dict[str, str]:
    return {"access_token": door.good_key, "key": door.good_key}


def lacking(allows: str, method: str, path: str, scope: str) -> Callable[[GuardedDoor], Reply]:
    """A request with a key that lacks the scope, which it is told."""

    def send(door: GuardedDoor) -> Reply:
        with door.guarded.http("acme", allows) as http:
            answer = http.request(method, path, headers={"Idempotency-Key": door.key} if method == "POST" else None)
        assert f'error="insufficient_scope", scope="{scope}"' in answer.headers["www-authenticate"]
        assert answer.headers["connection"] == "close"
        return reply_of(answer)

    return send


def raw_key(value: bytes) -> Callable[[GuardedDoor], Reply]:
    head = b"GET /jobs HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer " + value + b"\r\n\r\n"
    return lambda door: door.raw(head)


def expecting_to_be_asked(door: GuardedDoor) -> Reply:
    lines = ("POST /jobs HTTP/1.1", f"Content-Type: {FORM}", "Content-Length: 1000", "Expect: 100-continue")
    with door.connect() as opened:
        opened.sendall(door.head(*lines))
        assert opened.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) == b"HTTP/1.1 401"  # and no 100 before it
        return read_reply(opened)


def under_anothers_idempotency_key(door: GuardedDoor) -> Reply:
    """Two tenants, one text: two jobs, and each is answered again by its own."""
    other = door.of("umbrella")
    first, second, again = door.spec(), other.spec(), door.spec()
    assert "idempotency-replayed" not in second.headers
    assert first.json["id"] != second.json["id"]
    assert (again.json["id"], again.headers["idempotency-replayed"]) == (first.json["id"], "true")
    assert other.service.http.post(f"/jobs/{second.json['id']}/cancel").status_code == 202
    return second


def too_often(send: Callable[[Door], Reply]) -> Callable[[GuardedDoor], Reply]:
    """One request more than a tenant may send in an hour; others go on."""

    def send_at_last(door: GuardedDoor) -> Reply:
        hasty = door.of("hasty")
        for _ in range(PER_HOUR):
            if hasty.service.http.get(f"/jobs/{NOBODY}").status_code == 429:
                break
        reply = send(hasty)
        assert 0 < int(reply.headers["retry-after"]) <= 3600
        assert reply.json["limit"] == PER_HOUR
        return reply

    return send_at_last


def at_the_limit(tenant: str, quota: str, send: Callable[[Door], Reply]) -> Callable[[GuardedDoor], Reply]:
    """A request of a tenant that has used up a quota."""

    def send_there(door: GuardedDoor) -> Reply:
        reply = send(door.of(tenant))
        assert reply.json["quota"] == quota
        return reply

    return send_there


def announced(door: GuardedDoor) -> Reply:
    """The head of an upload for which there is no room; who waited for a byte of its body would answer 408."""
    lines = (f"Authorization: Bearer {door.keys['full']}", f"Content-Type: {OCTETS['Content-Type']}")
    reply = door.raw(door.head("POST /teachers HTTP/1.1", *lines, "Content-Length: 500000"))
    assert reply.json["quota"] == "stored_bytes"
    return reply


def a_job(door: Door) -> Reply:
    return door.spec()


def a_form(door: Door) -> Reply:
    return door.parts(("spec", GOOD), ("teacher", FRESH))


def in_chunks(door: Door) -> Reply:
    return door.send("POST", "/teachers", chunked(FRESH, 10_000), OCTETS)


NO_KEY = (401, "unauthenticated")
NO_SCOPE = (403, "insufficient-scope")
BAD = (400, None)
LIMITED = (429, "rate-limited")
EXCEEDED = (429, "quota-exceeded")
OCTET_STREAM = OCTETS["Content-Type"]
STRANGE = {
    "B-002": {
        "as Basic": lambda key: {"Authorization": f"Basic {key}"},
        "without a scheme": lambda key: {"Authorization": key},
        "in another header": lambda key: {"X-Api-Key": key},
        "in two headers": lambda key: [("Authorization", f"Bearer {key}")] * 2,
        "x": lambda _: {"Authorization": "Bearer x"},
        "no key": lambda _: {},
    },
    "B-004": {
        "10 KB": lambda _: {"Authorization": f"Bearer {'k' * 10_000}"},
        "not ASCII": lambda key: [(b"Authorization", f"Bearer {key}é".encode())],
    },
}
"""Headers that are made of a good key, or of none."""

INPUTS = [
    entry("B-001", "1 GB announced", endless("/teachers", OCTET_STREAM, f"Content-Length: {HUGE}"), *NO_KEY),
    entry("B-001", "1 GB in chunks", endless("/teachers", OCTET_STREAM, "Transfer-Encoding: chunked"), *NO_KEY),
    entry("B-001", "1 GB as a form", endless("/jobs", FORM, f"Content-Length: {HUGE}"), *NO_KEY),
    *(entry("B-002", what, no_better_than_none(bearing(what)), *NO_KEY) for what in WRONG_KEYS),
    *(
        entry(row, what, no_better_than_none(headers_of(made)), *NO_KEY, secrets=("kkk",))
        for row, headers in STRANGE.items()
        for what, made in headers.items()
    ),
    entry("B-002", "in the query", no_better_than_none(params=in_query), *NO_KEY),
    entry("B-003", "POST /jobs with a key that may read", lacking("read", "POST", "/jobs", "jobs:write"), *NO_SCOPE),
    entry("B-003", "DELETE with a key that may read", lacking("read", "DELETE", "/jobs/none", "jobs:write"), *NO_SCOPE),
    entry("B-003", "GET /jobs with a key that may write", lacking("write", "GET", "/jobs", "jobs:read"), *NO_SCOPE),
    entry("B-003", "GET /menu with a key that may write", lacking("write", "GET", "/menu", "jobs:read"), *NO_SCOPE),
    entry("B-003", "GET /metrics with a key for jobs", lacking("both", "GET", "/metrics", "metrics"), *NO_SCOPE),
    entry("B-004", "a NUL", raw_key(b"dfkd\x00"), *BAD),
    entry("B-004", "a control character", raw_key(b"\x01"), *NO_KEY),
    entry("B-004", "DEL", raw_key(b"a\x7f"), *NO_KEY),
    entry("B-005", "refused instead of asked", expecting_to_be_asked, *NO_KEY),
    entry("B-027", "two tenants, one text", under_anothers_idempotency_key, 202),
    entry("B-028", f"GET, {PER_HOUR + 1} in an hour", too_often(lambda door: door.send("GET", "/jobs")), *LIMITED),
    entry("B-028", "a job", too_often(a_job), *LIMITED),
    entry("B-028", "an upload of 30 MB", too_often(lambda door: door.teacher(bytes(30_000_000))), *LIMITED),
    entry("B-029", "a file without room, announced", announced, *EXCEEDED, hint=True),
    *(
        entry("B-029", what, at_the_limit(tenant, quota, send), *EXCEEDED, hint=True)
        for what, tenant, quota, send in (
            ("a job too many", "crowded", "queued_jobs", a_job),
            ("a job too many, as a form", "crowded", "queued_jobs", a_form),
            ("a file without room, in chunks", "full", "stored_bytes", in_chunks),
            ("a file without room, in a form", "full", "stored_bytes", a_form),
            ("no seconds left today", "spent", "device_seconds_per_day", a_job),
        )
    ),
]
