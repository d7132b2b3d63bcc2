"""An answer that comes before its request is over ends the connection, and the client gets to see it."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.middleware.early_response import LINGER_BYTES
from tests.builders import onnx_teacher
from tests.patience import PATIENCE
from tests.service.harness import Service, eventually, holdings, running_service

ENDLESS_BYTES = 500 * 10**6
IN_BUFFERS_BYTES = 16 * 10**6  # what two kernels may hold of a connection over loopback


@pytest.fixture(scope="module")
def generous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that takes large uploads."""
    with running_service(tmp_path_factory.mktemp("generous") / "data", DFKD_SWEEP_SECONDS="3600") as running:
        yield running


def opened(service: Service, *lines: str) -> socket.socket:
    """A connection on which a request to POST /teachers has begun."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    head = ["POST /teachers HTTP/1.1", "Host: here", "Content-Type: application/octet-stream", *lines, "", ""]
    connection.sendall("\r\n".join(head).encode())
    return connection


def test_an_upload_that_was_refused_is_not_read_to_its_end(generous: Service) -> None:
    before = holdings(generous)
    with opened(generous, f"Content-Length: {ENDLESS_BYTES}") as connection:
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < ENDLESS_BYTES:
                connection.sendall(bytes(2**16))  # zeros are no model, as the first of them show
                sent += 2**16
    assert sent < LINGER_BYTES + IN_BUFFERS_BYTES
    assert eventually(lambda: holdings(generous) == before)


def test_its_answer_arrives_and_says_that_the_connection_ends(generous: Service) -> None:
    with opened(generous, f"Content-Length: {ENDLESS_BYTES}") as connection:
        connection.sendall(bytes(2**19))
        answer = b""
        while chunk := connection.recv(2**16):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"}")


def test_who_waits_to_be_asked_is_answered_instead(generous: Service) -> None:
    too_large = 3 * 2**30
    with opened(generous, f"Content-Length: {too_large}", "Expect: 100-continue") as connection:
        answer = b""
        while chunk := connection.recv(2**16):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_small_rest_costs_no_connection(generous: Service) -> None:
    first = generous.http.post("/jobs/nothing/cancel", content=b"x" * 1000)
    assert first.status_code == 404
    assert "connection" not in first.headers


def test_a_body_that_was_read_costs_no_connection(generous: Service) -> None:
    headers = {"Content-Type": "application/octet-stream", "X-Content-SHA256": "0" * 64}
    refused = generous.http.post("/teachers", content=onnx_teacher(), headers=headers)
    assert refused.json()["code"] == "digest-mismatch"
    assert "connection" not in refused.headers
