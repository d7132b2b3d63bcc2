"""Authentication: without a key only the public routes answer, and a refusal comes before the body is read."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from jobs.identity import Caller, Scope
from jobs.settings import Settings
from service.app import create_app
from service.middleware.authentication import is_loopback, scope_for
from tests.patience import PATIENCE
from tests.service.guarded import Guarded
from tests.service.harness import eventually, problem_of, running_service

PUBLIC = None
EXPECTED = {
    ("GET", "/"): PUBLIC,
    ("GET", "/healthz"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/docs/oauth2-redirect"): PUBLIC,
    ("GET", "/redoc"): PUBLIC,
    ("GET", "/problems/{code}"): PUBLIC,
    ("GET", "/metrics"): "metrics",
    ("GET", "/menu"): "jobs:read",
    ("GET", "/quota"): "jobs:read",
    ("GET", "/jobs"): "jobs:read",
    ("POST", "/jobs"): "jobs:write",
    ("POST", "/plans"): "jobs:read",
    ("GET", "/jobs/{job_id}"): "jobs:read",
    ("DELETE", "/jobs/{job_id}"): "jobs:write",
    ("POST", "/jobs/{job_id}/cancel"): "jobs:write",
    ("POST", "/jobs/{job_id}/pause"): "jobs:write",
    ("POST", "/jobs/{job_id}/resume"): "jobs:write",
    ("POST", "/jobs/{job_id}/retry"): "jobs:write",
    ("POST", "/jobs/{job_id}/continue"): "jobs:write",
    ("GET", "/jobs/{job_id}/events"): "jobs:read",
    ("GET", "/jobs/{job_id}/artifacts"): "jobs:read",
    ("GET", "/jobs/{job_id}/artifacts/{name}"): "jobs:read",
    ("HEAD", "/jobs/{job_id}/artifacts/{name}"): "jobs:read",
    ("POST", "/teachers"): "jobs:write",
    ("GET", "/teachers/{teacher_id}"): "jobs:read",
    ("DELETE", "/teachers/{teacher_id}"): "jobs:write",
}
"""Every operation there is. A new route fails the first test until it stands here, and so was thought about."""


def operations(app: FastAPI) -> set[tuple[str, str]]:
    """What the routes and the OpenAPI document name; HEAD, where it only repeats GET, left out."""
    found = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    for route in all_routes(app.routes):
        found |= {(method, route.path) for method in route.methods if (method, "GET") != ("HEAD", min(route.methods))}
    return found


def all_routes(routes: Any) -> Iterator[Any]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from all_routes(included.routes)
        else:
            yield route


def path_of(template: str) -> str:
    parts = {"name": "student.onnx", "teacher_id": "0" * 64, "code": "internal"}
    return template.format(job_id="7f0e3c52-5d9a-4f0c-9a35-0d7f2f1c6b1e", **parts)


def test_every_operation_is_on_the_list_with_the_scope_that_it_needs() -> None:
    app = create_app(Settings())
    assert operations(app) == set(EXPECTED)
    assert {key: scope_for(*key) for key in EXPECTED} == EXPECTED
    for (method, path), scope in EXPECTED.items():
        operation = app.openapi()["paths"].get(path, {}).get(method.lower())
        if operation is not None:
            assert operation["security"] == ([] if scope is None else [{"key": [scope]}])
            assert {"401", "403"} <= set(operation["responses"]) or scope is None


def test_without_a_key_only_the_public_list_answers(guarded: Guarded) -> None:
    for (method, template), scope in EXPECTED.items():
        response = guarded.service.http.request(method, path_of(template))
        if scope is None:
            assert response.status_code in {200, 307}, template
        else:
            assert response.status_code == 401, template
            assert response.headers["www-authenticate"] == 'Bearer realm="dfkd"'
            assert method == "HEAD" or problem_of(response)["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("POST", "/healthz"), ("OPTIONS", "/jobs"), ("GET", "/problems/../jobs"), ("GET", "//docs"),
     ("GET", "/docs/"), ("GET", "/%2e%2e/jobs"), ("BREW", "/jobs"), ("GET", "/healthz%0a"), ("GET", "/METRICS")],
)  # fmt: skip
def test_what_nobody_thought_of_needs_a_key_too(guarded: Guarded, method: str, path: str) -> None:
    host, port = guarded.service.url.removeprefix("http://").split(":")
    answer = sent(host, int(port), f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "host", ["x/healthz?", "x/docs#", "x/problems/", "x/healthz?a=", "x@y/healthz?", "/healthz?", ""]
)
def test_no_host_header_makes_a_path_public(guarded: Guarded, host: str) -> None:
    address, port = guarded.service.url.removeprefix("http://").split(":")
    answer = sent(address, int(port), f"GET /jobs HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.split()[1] in {b"400", b"401"}


def test_the_scheme_is_not_case_sensitive(guarded: Guarded) -> None:
    headers = {"Authorization": f"bEARER  {guarded.keys['acme', 'read']}"}
    assert guarded.service.http.get("/jobs", headers=headers).status_code == 200


def test_metrics_are_for_a_key_of_their_own(guarded: Guarded) -> None:
    _, key = guarded.service.store.api_keys.create(Caller("operator", scopes=frozenset({Scope.METRICS})))
    headers = {"Authorization": f"Bearer {key}"}
    http = guarded.service.http
    assert eventually(lambda: http.get("/metrics", headers=headers).status_code == 200)
    assert http.get("/jobs", headers=headers).status_code == 403


def test_a_new_key_works_and_a_revoked_one_no_longer_does(guarded: Guarded) -> None:
    keys = guarded.service.store.api_keys
    made, key = keys.create(Caller("acme"))
    headers = {"Authorization": f"Bearer {key}"}

    def status() -> int:
        return guarded.service.http.get("/jobs", headers=headers).status_code

    assert eventually(lambda: status() == 200)
    assert eventually(lambda: {key.id: key.last_used_at for key in keys.list()}[made.id] is not None)
    keys.revoke(made.id)
    assert eventually(lambda: status() == 401)


def connect(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=PATIENCE)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return connection


def sent(host: str, port: int, request: bytes) -> bytes:
    """What comes back until the other side closes."""
    with connect(host, port) as connection:
        connection.sendall(request)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


@pytest.mark.parametrize(("path", "limit"), [("/teachers", 1_000_000), ("/jobs/x/cancel", 65_536)])
def test_a_declared_size_above_the_limit_is_refused_before_the_body(guarded: Guarded, path: str, limit: int) -> None:
    host, port = guarded.service.url.removeprefix("http://").split(":")
    key = guarded.keys["acme", "both"]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {limit + 1}\r\n\r\n"
    )
    with connect(host, int(port)) as connection:
        connection.sendall(head.encode())
        answer = received(connection)  # nothing of the body was sent
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["max_bytes"] == limit


def test_on_loopback_nobody_is_asked_until_there_is_a_key(tmp_path: Path) -> None:
    with running_service(tmp_path / "data") as service:
        assert service.http.get("/jobs").status_code == 200
        assert service.http.get("/metrics").status_code == 200
        assert service.http.get("/jobs", headers={"Authorization": "Bearer whatever"}).status_code == 200
        made, _ = service.store.api_keys.create(Caller("default"))
        service.store.api_keys.revoke(made.id)  # that there was one is enough
        assert eventually(lambda: service.http.get("/jobs").status_code == 401)


def test_only_this_machine_is_on_loopback() -> None:
    ours = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::1%lo"]
    others = ["0.0.0.0", "10.0.0.7", "::", "fe80::1%eth0", "::ffff:10.0.0.7", "/run/dfkd.sock", "", "localhost.evil"]
    assert [is_loopback(address) for address in ours + others] == [True] * len(ours) + [False] * len(others)
