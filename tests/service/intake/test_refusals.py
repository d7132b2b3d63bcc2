"""Every way to be refused by POST /jobs: each has its code and leaves nothing behind."""

import json
import pickle
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import httpx
import psutil
import pytest
from onnx import load_from_string

from tests.builders import onnx_teacher
from tests.patience import PATIENCE
from tests.service.conftest import SPEC
from tests.service.harness import (
    BOUNDARY,
    Service,
    eventually,
    holdings,
    multipart,
    post_multipart,
    post_parts,
    problem_of,
    spec_text,
)

OCTETS = {"Content-Type": "application/octet-stream"}
UNKNOWN = "0" * 64
GOOD = spec_text(SPEC)


def archive(*names: str) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, b"content")
    return file.getvalue()


def with_operator(name: str) -> bytes:
    model = load_from_string(onnx_teacher(seed=3))
    model.graph.node[1].op_type = name
    content: bytes = model.SerializeToString()
    return content


def refused_part(teacher: bytes, /, **spec: Any) -> Callable[[httpx.Client], httpx.Response]:
    """POST /jobs with this teacher and this spec."""
    text = spec_text({**SPEC, **spec})
    return lambda http: post_parts(http, [("spec", text), ("teacher", teacher)])


def raw(body: bytes, content_type: str) -> Callable[[httpx.Client], httpx.Response]:
    return lambda http: http.post("/jobs", content=body, headers={"Content-Type": content_type})


def parts(*given: tuple[str, bytes], **options: Any) -> Callable[[httpx.Client], httpx.Response]:
    return lambda http: post_parts(http, list(given), **options)


FRESH = onnx_teacher(seed=99)  # never accepted, so that its file would be noticed
FORM = f"multipart/form-data; boundary={BOUNDARY}"

REFUSALS: dict[str, tuple[int, str, Callable[[httpx.Client], httpx.Response]]] = {
    # transport
    "no content type": (415, "unsupported-media-type", lambda http: http.post("/jobs", content=b"x")),
    "text": (415, "unsupported-media-type", raw(b"x", "text/plain")),
    "urlencoded": (415, "unsupported-media-type", raw(b"spec=1", "application/x-www-form-urlencoded")),
    "no boundary": (400, "malformed-multipart", raw(multipart([("spec", GOOD)]), "multipart/form-data")),
    "gzip": (
        415,
        "unsupported-media-type",
        lambda http: http.post("/jobs", content=b"x", headers={"Content-Type": FORM, "Content-Encoding": "gzip"}),
    ),
    "declared too large": (413, "payload-too-large", raw(b"x" * 2_000_000, FORM)),
    "chunked too large": (
        413,
        "payload-too-large",
        lambda http: post_multipart(http, iter([multipart([("teacher", FRESH)])[:-60], *[b"\x00" * 65536] * 20])),
    ),
    # multipart
    "no end": (400, "malformed-multipart", parts(("spec", GOOD), ("teacher", FRESH), end=False)),
    "preamble": (400, "malformed-multipart", raw(b"x" * 70_000 + multipart([("spec", GOOD)]), FORM)),
    "many parts": (400, "malformed-multipart", parts(*[("p", b"")] * 1001)),
    "large part header": (
        400,
        "malformed-multipart",
        raw(f"--{BOUNDARY}\r\nX: {'y' * 500_000}\r\n\r\n".encode(), FORM),
    ),
    "two specs": (400, "unexpected-part", parts(("spec", GOOD), ("spec", GOOD), ("teacher", FRESH))),
    "two teachers": (400, "unexpected-part", parts(("teacher", FRESH), ("teacher", FRESH), ("spec", GOOD))),
    "unknown part": (400, "unexpected-part", parts(("teacher", FRESH), ("spec", GOOD), ("dataset", b"x"))),
    "no teacher": (422, "missing-part", parts(("spec", GOOD))),
    "no spec": (422, "missing-part", parts(("teacher", FRESH))),
    # spec
    "spec too large": (413, "payload-too-large", parts(("teacher", FRESH), ("spec", b" " * 8193))),
    "spec not JSON": (400, "malformed-json", parts(("teacher", FRESH), ("spec", b"{"))),
    "spec with NaN": (422, "validation-error", parts(("teacher", FRESH), ("spec", b'{"student": NaN}'))),
    "spec with surrogate": (422, "validation-error", parts(("teacher", FRESH), ("spec", b'{"\\ud800": 1}'))),
    "spec with unknown key": (422, "validation-error", refused_part(FRESH, epochs=3)),
    "spec with teacher id": (422, "validation-error", refused_part(FRESH, teacher={"id": UNKNOWN})),
    # teacher, by content
    "empty teacher": (422, "teacher-invalid", refused_part(b"")),
    "pickle": (415, "format-unsupported", refused_part(pickle.dumps({"a": 1}, protocol=2))),
    "torch zip": (415, "format-unsupported", refused_part(archive("model/data.pkl", "model/version"))),
    "torchscript": (415, "format-unsupported", refused_part(archive("m/code/a.py", "m/constants.pkl"))),
    "keras": (415, "format-unsupported", refused_part(archive("config.json", "model.weights.h5"))),
    "html": (415, "format-unsupported", refused_part(b"<!doctype html><title>login</title>")),
    "truncated ONNX": (422, "teacher-invalid", refused_part(FRESH[: len(FRESH) // 2])),
    "unknown operator": (422, "teacher-op-unsupported", refused_part(with_operator("NonMaxSuppression"))),
    # teacher and spec together
    "other shape": (422, "teacher-mismatch", refused_part(FRESH, teacher={"input": {"shape": [3, 32, 32]}})),
    "other classes": (422, "teacher-mismatch", refused_part(FRESH, teacher={"num_classes": 11})),
    "other format": (422, "teacher-mismatch", refused_part(FRESH, teacher={"format": "safetensors"})),
    "unknown student": (422, "student-infeasible", refused_part(FRESH, student={"architecture": "torch.hub:x"})),
    "student too large": (422, "student-not-smaller", refused_part(FRESH, student={"architecture": "resnet34"})),
    "student option": (
        422,
        "student-infeasible",
        refused_part(FRESH, student={"architecture": "lenet5_half", "options": {"zzz": 1}}),
    ),
    # JSON body
    "json without id": (422, "validation-error", lambda http: http.post("/jobs", json=SPEC)),
    "json unknown id": (
        404,
        "teacher-not-found",
        lambda http: http.post("/jobs", json={**SPEC, "teacher": {"id": UNKNOWN}}),
    ),
    "json too large": (413, "payload-too-large", raw(b" " * 9000, "application/json")),
    "json chunked too large": (
        413,
        "payload-too-large",
        lambda http: http.post("/jobs", content=iter([b" " * 5000] * 3), headers={"Content-Type": "application/json"}),
    ),
    # POST /teachers
    "teachers: text": (415, "unsupported-media-type", lambda http: http.post("/teachers", content=b"x")),
    "teachers: empty": (422, "teacher-invalid", lambda http: http.post("/teachers", content=b"", headers=OCTETS)),
    "teachers: pickle": (
        415,
        "format-unsupported",
        lambda http: http.post("/teachers", content=pickle.dumps([1], protocol=4), headers=OCTETS),
    ),
    "teachers: digest": (
        422,
        "digest-mismatch",
        lambda http: http.post("/teachers", content=FRESH, headers={**OCTETS, "X-Content-SHA256": UNKNOWN}),
    ),
    "teachers: no digest": (
        422,
        "validation-error",
        lambda http: http.post("/teachers", content=FRESH, headers={**OCTETS, "Repr-Digest": "sha-256=:!!:"}),
    ),
}


POINTERS = {
    "spec with NaN": "/student",
    "spec with unknown key": "/epochs",
    "other shape": "/teacher/input/shape",
    "other classes": "/teacher/num_classes",
    "other format": "/teacher/format",
    "unknown student": "/student/architecture",
    "student too large": "/student/architecture",
    "student option": "/student/options/zzz",
    "json without id": "/teacher",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_its_code_and_leaves_nothing(service: Service, name: str) -> None:
    status, code, send = REFUSALS[name]
    before = holdings(service)
    response = send(service.http)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    problem = problem_of(response)
    assert "/work" not in response.text
    assert "Traceback" not in response.text
    assert POINTERS.get(name) in {None, *(error.get("pointer") for error in problem.get("errors", []))}
    assert holdings(service) == before


def test_a_refused_format_tells_how_to_convert(http: httpx.Client) -> None:
    assert "dfkd submit mynet.py:Net --weights" in problem_of(REFUSALS["pickle"][2](http))["hint"]


def test_unsupported_operators_are_listed(http: httpx.Client) -> None:
    nodes = problem_of(REFUSALS["unknown operator"][2](http))["nodes"]
    assert any("NonMaxSuppression" in node for node in nodes)


def test_a_wrong_spec_is_told_before_the_file_has_travelled(http: httpx.Client) -> None:
    sent = 0

    def slowly() -> Iterator[bytes]:
        nonlocal sent
        yield multipart([("spec", b'{"student": 1}'), ("teacher", FRESH)])[:-30]
        while sent < 100:
            sent += 1
            time.sleep(0.02)
            yield b"\x00" * 1000

    assert problem_of(post_multipart(http, slowly()))["code"] == "validation-error"


def connection(service: Service) -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def started_upload(service: Service) -> socket.socket:
    opened = connection(service)
    body = multipart([("teacher", FRESH)])
    opened.sendall(
        f"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body[: len(body) // 2]
    )
    return opened


def test_an_upload_that_breaks_off_leaves_nothing(service: Service) -> None:
    before = holdings(service)
    started_upload(service).close()
    assert eventually(lambda: holdings(service) == before)


@pytest.mark.parametrize("drop", [b"", b"x"])
def test_an_upload_that_falls_silent_or_drips_is_ended(service: Service, drop: bytes) -> None:
    before = holdings(service)
    with started_upload(service) as opened:
        opened.settimeout(0.05)
        answer = b""
        deadline = time.monotonic() + PATIENCE
        while b"request-timeout" not in answer and time.monotonic() < deadline:
            with suppress(TimeoutError):
                answer += opened.recv(65536)
            if not answer:
                opened.sendall(drop)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request-timeout"' in answer
    assert eventually(lambda: holdings(service) == before)


def test_thousands_of_tiny_chunks_are_read_in_time(service: Service) -> None:
    body = multipart([("spec", b'{"student": 1}'), ("teacher", b"x" * 100_000)])
    started = time.monotonic()
    response = post_multipart(service.http, (body[index : index + 1] for index in range(4_000)))
    assert response.status_code == 422
    assert time.monotonic() - started < 60  # not quadratic


def test_a_body_of_errors_is_answered_briefly_and_in_time(http: httpx.Client) -> None:
    text = json.dumps({**SPEC, "teacher": {"input": {"shape": ["x"] * 1500}}}).encode()
    started = time.monotonic()
    response = post_parts(http, [("spec", text), ("teacher", b"")])
    assert time.monotonic() - started < 60  # not quadratic
    assert len(problem_of(response)["errors"]) <= 20
    assert len(response.content) < 4000


def test_a_full_disk_is_said_and_leaves_nothing(service: Service) -> None:
    process = psutil.Process(service.pid)
    before, limits = holdings(service), process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (600_000, limits[1]))  # a file of the service cannot grow beyond this
    try:
        response = service.http.post("/teachers", content=FRESH + b"\x00" * 600_000, headers=OCTETS)
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, limits)
    assert (response.status_code, problem_of(response)["code"]) == (507, "storage-full")
    assert response.headers["retry-after"] == "5"
    assert holdings(service) == before


def test_a_good_request_succeeds_after_all_this(http: httpx.Client) -> None:
    assert post_parts(http, [("spec", GOOD), ("teacher", onnx_teacher())]).status_code == 202
