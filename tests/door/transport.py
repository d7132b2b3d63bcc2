"""B-006 to B-026: faults of the request itself, before its body is read."""

import json
import time
import zlib
from collections.abc import Callable, Iterator

from tests.door.door import FORM, FRESH, GOOD, OCTETS, Door, Input, Reply, Send, read_reply
from tests.patience import PATIENCE, scaled, until
from tests.service.harness import BOUNDARY, multipart, row_counts

LIMIT = 100_000_000  # DFKD_MAX_UPLOAD_BYTES of the server under test
IDLE_SECONDS = scaled(1.5)
LARGE = 0x7FFFFFFF
BODY = multipart([("spec", GOOD), ("teacher", FRESH)])


def head_only(*lines: str, path: str = "/teachers", content_type: str = OCTETS["Content-Type"]) -> Send:
    """POST whose headers are all that is sent."""
    return lambda door: door.raw(door.head(f"POST {path} HTTP/1.1", f"Content-Type: {content_type}", *lines))


def chunked(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def too_long_in_chunks(door: Door) -> Reply:
    pieces = (multipart([("spec", GOOD), ("teacher", FRESH)])[:-30] if at == 0 else b"\0" * 2**20 for at in range(110))
    return door.form(pieces)


def cut_short(door: Door) -> Reply:
    return door.raw(
        door.head("POST /jobs HTTP/1.1", f"Content-Type: {FORM}", f"Content-Length: {len(BODY) + 1000}"),
        BODY[: len(BODY) // 2],
        end=True,
    )


def dripping(door: Door) -> Reply:
    with door.connect() as opened:
        opened.sendall(door.head("POST /jobs HTTP/1.1", f"Content-Type: {FORM}", f"Content-Length: {len(BODY)}"))
        opened.sendall(BODY[:500])
        opened.settimeout(0.3)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            opened.sendall(b"\0")
            try:
                opened.recv(1, 2)  # MSG_PEEK: is there an answer?
                break
            except TimeoutError:
                pass
        opened.settimeout(PATIENCE)
        return read_reply(opened)


def crumbs(door: Door) -> Reply:
    start = time.monotonic()
    reply = door.raw(
        door.head("POST /teachers HTTP/1.1", "Content-Type: application/octet-stream", "Transfer-Encoding: chunked"),
        b"1\r\nx\r\n" * 3_000_000,
    )
    assert time.monotonic() - start < 60  # not quadratic
    assert door.service.http.get("/healthz").status_code == 200
    return reply


def gzip_bomb(door: Door) -> Reply:
    packed = zlib.compress(bytes(10_000_000), wbits=31)
    return door.send("POST", "/teachers", packed, {**OCTETS, "Content-Encoding": "gzip"})


def raw(body: bytes | Callable[[], bytes], content_type: str) -> Send:
    return lambda door: door.form(body if isinstance(body, bytes) else body(), content_type)


def without_type(door: Door) -> Reply:
    return door.send("POST", "/jobs", BODY)


def part(*headers: bytes, content: bytes = b"x") -> bytes:
    return f"--{BOUNDARY}\r\n".encode() + b"\r\n".join(headers) + b"\r\n\r\n" + content + b"\r\n"


NAMED = b'Content-Disposition: form-data; name="spec"'
END = f"--{BOUNDARY}--\r\n".encode()


def parts(*given: tuple[str, bytes], end: bool = True) -> Send:
    return lambda door: door.parts(*given, end=end)


def line(request_line: str, *lines: str, host: str = "door") -> Send:
    """A request line and headers as they are, without a key."""
    text = "\r\n".join([request_line, *([f"Host: {host}"] if host else []), *lines, "", ""])
    return lambda door: door.raw(text.encode("latin-1"))


def keyed(value: bytes) -> Send:
    def send(door: Door) -> Reply:
        body = json.dumps({"student": {"architecture": "lenet5_half"}, "teacher": {"id": door.teacher_id}}).encode()
        head = b"POST /jobs HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\nIdempotency-Key: " + value
        return door.raw(head + f"\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return send


def other_request_under_a_used_key(door: Door) -> Reply:
    """Leaves a job behind, as it should: that of the first request."""
    door.good()
    return door.spec(distillation={"seed": 5})


def while_the_first_runs(door: Door) -> Reply:
    taken = row_counts(door.service.settings)["requests"]
    with door.connect() as opened:
        opened.sendall(door.head("POST /jobs HTTP/1.1", f"Content-Type: {FORM}", f"Content-Length: {len(BODY)}"))
        opened.sendall(BODY[: len(BODY) // 2])
        until(lambda: row_counts(door.service.settings)["requests"] > taken)  # who asks earlier takes the key
        return door.spec()


def teacher_first(door: Door) -> Reply:
    return door.parts(("teacher", FRESH), ("spec", b'{"student": 1}'))


def without_key(door: Door) -> Reply:
    body = json.dumps({"student": {"architecture": "lenet5_half"}, "teacher": {"id": door.teacher_id}}).encode()
    answer = door.service.http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    return Reply(answer.status_code, dict(answer.headers), answer.content)


TOO_LARGE = (413, "payload-too-large")
BAD = (400, None)
BAD_REQUEST = (400, "bad-request")
MEDIA = (415, "unsupported-media-type")
MULTIPART = (400, "malformed-multipart")
INVALID = (422, "validation-error")
NOT_FOUND = (404, "not-found")

INPUTS = [
    Input("B-006", "100 MB + 1 declared", head_only(f"Content-Length: {LIMIT + 1}"), *TOO_LARGE),
    Input(
        "B-006",
        "2 GiB declared for a form",
        head_only(f"Content-Length: {LARGE}", path="/jobs", content_type=FORM),
        *TOO_LARGE,
    ),
    Input(
        "B-006",
        "70 KB of JSON declared",
        head_only("Content-Length: 70000", path="/jobs", content_type="application/json"),
        *TOO_LARGE,
    ),
    Input("B-007", "110 MB in chunks of 1 MiB", too_long_in_chunks, *TOO_LARGE, slow=True),
    Input(
        "B-007",
        "70 KB of JSON in chunks",
        lambda door: door.send("POST", "/jobs", chunked(b" " * 70_000, 7000), {"Content-Type": "application/json"}),
        *TOO_LARGE,
    ),
    Input("B-008", "half a body, then the end", cut_short, None),
    Input("B-009", "both", head_only("Content-Length: 5", "Transfer-Encoding: chunked"), *BAD_REQUEST),
    Input("B-009", "two lengths", head_only("Content-Length: 5", "Content-Length: 6"), *BAD),
    Input("B-009", "two codings", head_only("Transfer-Encoding: chunked, chunked"), *BAD),
    Input("B-009", "another coding", head_only("Transfer-Encoding: gzip"), *BAD),
    *(
        Input("B-010", f"Content-Length: {length[:12]}", head_only(f"Content-Length: {length}"), *BAD)
        for length in ("-1", "1e9", "+5", "9" * 30, "0x10", "5 5", "")
    ),
    Input("B-011", "a byte every 0.3 s, limit 1.5 s", dripping, 408, "request-timeout"),
    Input(
        "B-012",
        "one header of 70 KB",
        head_only("Content-Length: 0", f"X-Long: {'x' * 70_000}"),
        431,
        "headers-too-large",
    ),
    Input("B-012", "1,000 headers", head_only("Content-Length: 0", *["X-Short: x"] * 1000), 431, "headers-too-large"),
    Input("B-012", "one header of 5 MB", head_only("Content-Length: 0", f"X-Long: {'x' * 5_000_000}"), *BAD),
    Input("B-013", "3,000,000 chunks", crumbs, *BAD),
    Input("B-014", "10 MB of zeros as 10 KB", gzip_bomb, *MEDIA),
    Input("B-014", "br", lambda door: door.teacher(FRESH, **{"Content-Encoding": "br"}), *MEDIA),
    Input("B-015", "text/plain", raw(BODY, "text/plain"), *MEDIA),
    Input("B-015", "none", without_type, *MEDIA),
    Input("B-015", "urlencoded", raw(b"spec=1&teacher=2", "application/x-www-form-urlencoded"), *MEDIA),
    Input("B-015", "no boundary", raw(BODY, "multipart/form-data"), *MULTIPART),
    Input("B-015", "boundary of 300 bytes", raw(BODY, f"multipart/form-data; boundary={'b' * 300}"), *MULTIPART),
    Input("B-015", "30 KB of parameters", raw(BODY, "multipart/form-data;" + ' a="\\";' * 4000), *MULTIPART),
    Input(
        "B-015",
        "POST /teachers as JSON",
        lambda door: door.teacher(b"{}", **{"Content-Type": "application/json"}),
        *MEDIA,
    ),
    Input("B-016", "1,001 parts", parts(*[("p", b"")] * 1001), *MULTIPART),
    Input("B-016", "1,001 specs", parts(*[("spec", GOOD)] * 1001), *MULTIPART),
    Input("B-016", "part header of 5 MB", raw(lambda: part(b"X: " + b"y" * 5_000_000), FORM), *MULTIPART),
    Input("B-016", "200,000 part headers", raw(lambda: part(NAMED, *[b"X: y"] * 200_000), FORM), *MULTIPART),
    Input("B-016", "preamble of 5 MB", raw(lambda: b"x" * 5_000_000 + BODY, FORM), *MULTIPART),
    Input("B-016", "epilogue of 5 MB", raw(lambda: BODY + b"x" * 5_000_000, FORM), *MULTIPART),
    Input("B-016", "no end", parts(("spec", GOOD), ("teacher", FRESH), end=False), *MULTIPART),
    Input("B-016", "no part at all", raw(END, FORM), 422, "missing-part", hint=True),
    Input("B-016", "empty body", raw(b"", FORM), *MULTIPART),
    Input("B-016", "part without a name", raw(part(b"X: y") + END, FORM), *MULTIPART),
    Input("B-016", "header without a colon", raw(part(b"nothing") + END, FORM), *MULTIPART),
    Input("B-016", "base64", raw(part(NAMED, b"Content-Transfer-Encoding: base64") + END, FORM), *MEDIA),
    Input("B-017", "two specs", parts(("spec", GOOD), ("spec", GOOD)), 400, "unexpected-part"),
    Input("B-017", "two teachers", parts(("teacher", FRESH), ("teacher", FRESH)), 400, "unexpected-part"),
    Input(
        "B-017", "a data set", parts(("dataset", b"x"), ("spec", GOOD)), 400, "unexpected-part", secrets=("dataset",)
    ),
    Input("B-017", "a name of 3 KB", parts(("n" * 3000, b"x")), 400, "unexpected-part", secrets=("nnn",)),
    Input("B-018", "no teacher", parts(("spec", GOOD)), 422, "missing-part", hint=True),
    Input("B-018", "no spec", parts(("teacher", FRESH)), 422, "missing-part", hint=True),
    Input("B-019", "read to the end, then refused for its spec", teacher_first, *INVALID, pointer="/student"),
    *(
        Input(
            "B-020",
            f"{method} /jobs",
            lambda door, method=method: door.send(method, "/jobs"),
            405,
            "method-not-allowed",
        )
        for method in ("PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "BREW")
    ),
    Input("B-020", "CONNECT /jobs", line("CONNECT /jobs HTTP/1.1"), 405, "method-not-allowed"),
    Input("B-020", "GET /jobs is the list", lambda door: door.send("GET", "/jobs"), 200),
    Input("B-021", "GET @evil.example", line("GET @evil.example HTTP/1.1"), *NOT_FOUND, secrets=("evil",)),
    Input("B-021", "absolute address", line("GET http://evil.example/jobs HTTP/1.1"), *NOT_FOUND, secrets=("evil",)),
    Input("B-021", "Host: a b", line("GET /jobs HTTP/1.1", host="a b"), *BAD_REQUEST),
    Input("B-021", "Host: a/../b", line("GET /jobs HTTP/1.1", host="a/../b"), *BAD_REQUEST),
    Input("B-021", "no Host", line("GET /jobs HTTP/1.1", host=""), *BAD),
    Input("B-021", "two Hosts", line("GET /jobs HTTP/1.1", "Host: evil.example"), *BAD),
    Input("B-021", "another Host", line("GET / HTTP/1.1", host="evil.example"), 307, secrets=("evil",)),
    Input("B-021", "//jobs", line("GET //jobs HTTP/1.1"), *NOT_FOUND),
    Input("B-021", "/jobs/%2e%2e/", line("GET /jobs/%2e%2e/ HTTP/1.1"), *NOT_FOUND),
    Input("B-021", "/jobs/%2e%2e", line("GET /jobs/%2e%2e HTTP/1.1"), 404, "job-not-found"),
    Input("B-021", "/jobs/%00", line("GET /jobs/%00 HTTP/1.1"), 404, "job-not-found"),
    Input("B-021", "/jobs/%ff%fe", line("GET /jobs/%ff%fe HTTP/1.1"), 404, "job-not-found"),
    Input("B-021", "60 KB of path", line(f"GET /jobs/{'x' * 60_000} HTTP/1.1"), 404, "job-not-found", secrets=("xxx",)),
    Input("B-021", "NUL in the request line", line("GET\0 /jobs HTTP/1.1"), *BAD),
    Input("B-021", "HTTP/9.9", line("GET /jobs HTTP/9.9"), *BAD_REQUEST),
    Input(
        "B-021", "TLS hello", lambda door: door.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)), *BAD
    ),
    Input("B-021", "folded header", line("GET /jobs HTTP/1.1", "X-A: b", " c"), 200),
    Input(
        "B-022",
        "X-Content-SHA256 of other bytes",
        lambda door: door.teacher(FRESH, **{"X-Content-SHA256": "0" * 64}),
        422,
        "digest-mismatch",
    ),
    Input(
        "B-022",
        "Repr-Digest of other bytes",
        lambda door: door.teacher(FRESH, **{"Repr-Digest": f"sha-256=:{'A' * 43}=:"}),
        422,
        "digest-mismatch",
    ),
    Input("B-022", "a digest that is none", lambda door: door.teacher(FRESH, **{"X-Content-SHA256": "zz"}), *INVALID),
    Input("B-023", "none is needed", without_key, 202),
    *(
        Input("B-024", what, keyed(value), *INVALID)
        for what, value in {
            "10 KB": b"k" * 10_000,
            "empty": b"",
            "not ASCII": "é".encode(),
            "spaces": b"a b",
            "a second line": b"a\r\nIdempotency-Key: b",
        }.items()
    ),
    Input("B-024", "a bare CR", keyed(b"a\rb"), *BAD),
    Input("B-024", "a NUL", keyed(b"a\0b"), *BAD),
    Input("B-025", "another seed", other_request_under_a_used_key, 422, "idempotency-key-reused", hint=True),
    Input("B-026", "half of the first has come", while_the_first_runs, 409, "request-in-progress"),
]
