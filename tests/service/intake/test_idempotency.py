"""Idempotency-Key: the same request under the same key is done once and answered alike."""

import http.server
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dfkd.client import Client, Refused
from tests.builders import onnx_teacher
from tests.jobs.clockwork import set_answer
from tests.patience import PATIENCE, scaled
from tests.service.conftest import SPEC
from tests.service.harness import (
    BOUNDARY,
    Service,
    eventually,
    holdings,
    multipart,
    problem_of,
    running_service,
    spec_text,
)

Headers = dict[str, str]
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def key() -> Headers:
    return {"Idempotency-Key": str(uuid.uuid4())}


def submission(teacher: bytes, spec: dict[str, Any] = SPEC) -> bytes:
    return multipart([("spec", spec_text(spec)), ("teacher", teacher)])


def without_request_id(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    varying = {"x-request-id", "date", "idempotency-replayed"}
    return response.status_code, response.content, {k: v for k, v in response.headers.items() if k not in varying}


def test_the_same_submission_again_gets_the_same_answer_and_no_second_job(
    service: Service, teacher: bytes, key: Headers
) -> None:
    first = service.http.post("/jobs", content=submission(teacher), headers={**MULTIPART, **key})
    assert first.status_code == 202
    assert "idempotency-replayed" not in first.headers
    service.http.post(f"{first.headers['location']}/cancel")
    before = holdings(service)
    again = service.http.post("/jobs", content=submission(teacher), headers={**MULTIPART, **key})
    assert again.headers["idempotency-replayed"] == "true"
    assert without_request_id(again) == without_request_id(first)
    assert holdings(service) == before


def test_defaults_order_and_encoding_do_not_make_another_request(
    http: httpx.Client, teacher: bytes, key: Headers
) -> None:
    spec = {"distillation": {"seed": 0}, **SPEC}
    first = http.post("/jobs", content=submission(teacher), headers={**MULTIPART, **key})
    turned = multipart([("teacher", teacher), ("spec", spec_text(spec))])
    second = http.post("/jobs", content=turned, headers={**MULTIPART, **key})
    named = {**SPEC, "teacher": {"id": first.json()["teacher"]["id"]}}
    third = http.post("/jobs", json=named, headers={"Idempotency-Key": f'"{key["Idempotency-Key"]}"'})
    assert [response.json()["id"] for response in (second, third)] == [first.json()["id"]] * 2


def test_a_key_serves_one_request_only(service: Service, teacher: bytes, key: Headers) -> None:
    first = service.http.post("/jobs", content=submission(teacher), headers={**MULTIPART, **key})
    cancel = f"{first.headers['location']}/cancel"
    usual_steps = {**SPEC, "distillation": {"budget": {"steps": 6000}}}  # what is left open becomes another number
    before = holdings(service)
    refused = [
        service.http.post("/jobs", content=submission(teacher, {**SPEC, "name": "x"}), headers={**MULTIPART, **key}),
        service.http.post("/jobs", content=submission(teacher, usual_steps), headers={**MULTIPART, **key}),
        service.http.post("/jobs", content=submission(onnx_teacher(seed=3)), headers={**MULTIPART, **key}),
        service.http.post("/teachers", content=teacher, headers={**OCTETS, **key}),
        service.http.post(cancel, headers=key),
    ]
    for response in refused:
        problem = problem_of(response)
        assert (problem["status"], problem["code"]) == (422, "idempotency-key-reused")
        assert problem["errors"][0]["parameter"] == "idempotency-key"
        assert problem["hint"]
    assert holdings(service) == before
    assert service.http.get(first.headers["location"]).json()["state"] == "queued"


def test_a_refusal_is_not_kept(service: Service, teacher: bytes, key: Headers) -> None:
    before = holdings(service)
    wrong = service.http.post("/jobs", content=submission(teacher, {"student": {}}), headers={**MULTIPART, **key})
    broken = service.http.post("/jobs", content=submission(b"no model"), headers={**MULTIPART, **key})
    assert (wrong.status_code, broken.status_code) == (422, 415)
    assert holdings(service) == before
    right = service.http.post("/jobs", content=submission(teacher), headers={**MULTIPART, **key})
    assert (right.status_code, right.headers.get("idempotency-replayed")) == (202, None)


def test_an_upload_and_a_cancel_are_answered_again_too(http: httpx.Client, queued: str, key: Headers) -> None:
    teacher = onnx_teacher(seed=21)
    uploads = [http.post("/teachers", content=teacher, headers={**OCTETS, "Idempotency-Key": queued}) for _ in "12"]
    assert [response.status_code for response in uploads] == [201, 201]  # without the key the second would be 200
    cancels = [http.post(f"/jobs/{queued}/cancel", headers=key) for _ in "12"]
    assert [response.status_code for response in cancels] == [202, 202]
    assert cancels[0].content == cancels[1].content


@pytest.mark.parametrize("value", ["", '""', "a b", "x" * 256, "é".encode(), 'a"b', "a\\b", '"'])
def test_a_key_must_be_one(http: httpx.Client, queued: str, value: str | bytes) -> None:
    response = http.post(f"/jobs/{queued}/cancel", headers={"Idempotency-Key": value})
    problem = problem_of(response)
    assert (problem["status"], problem["code"]) == (422, "validation-error")
    assert problem["errors"][0]["parameter"] == "idempotency-key"
    assert http.get(f"/jobs/{queued}").json()["state"] == "queued"


def test_two_keys_are_none(http: httpx.Client, queued: str) -> None:
    response = http.post(f"/jobs/{queued}/cancel", headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    assert problem_of(response)["code"] == "validation-error"


def test_every_post_takes_a_key(http: httpx.Client) -> None:
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        if "post" in operations and path != "/plans":  # a plan keeps nothing
            names = {parameter["name"].lower() for parameter in operations["post"]["parameters"]}
            assert "idempotency-key" in names, path
            assert {"409", "422"} <= operations["post"]["responses"].keys(), path


def test_fifty_clients_with_one_key_make_one_job(service: Service, teacher: bytes, key: Headers) -> None:
    barrier, before = threading.Barrier(50), holdings(service).rows["jobs"]

    def post(_: int) -> httpx.Response:
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as http:
            barrier.wait()
            return http.post("/jobs", content=submission(teacher), headers={**MULTIPART, **key})

    with ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(post, range(50)))
    done = [response for response in responses if response.status_code == 202]
    waiting = [response for response in responses if response.status_code != 202]
    assert len({response.json()["id"] for response in done}) == 1
    assert sum("idempotency-replayed" not in response.headers for response in done) == 1
    assert {problem_of(response)["code"] for response in waiting} <= {"request-in-progress"}
    assert all(1 <= int(response.headers["retry-after"]) <= 2 for response in waiting)
    assert holdings(service).rows["jobs"] == before + 1


def half_a_request(service: Service, body: bytes, key: Headers) -> socket.socket:
    """A connection on which the first half of a submission has been sent."""
    lines = {"Host": "x", "Content-Length": str(len(body)), **MULTIPART, **key}
    head = "POST /jobs HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    connection = socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])))
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def code_of_another(service: Service, body: bytes, key: Headers) -> str:
    response = service.http.post("/jobs", content=body, headers={**MULTIPART, **key})
    return str(response.json().get("code", response.status_code))


def test_the_key_is_taken_before_the_body_has_come_and_free_when_the_client_is_gone(
    service: Service, teacher: bytes, key: Headers
) -> None:
    body = submission(teacher)
    with half_a_request(service, body, key):
        assert eventually(lambda: bool(holdings(service).open_files))
        assert code_of_another(service, body, key) == "request-in-progress"
    assert eventually(lambda: code_of_another(service, body, key) == "202")


def test_an_answer_that_got_lost_is_given_again(service: Service, teacher: bytes, key: Headers) -> None:
    body, before = submission(teacher), holdings(service).rows["jobs"]
    with half_a_request(service, body, key) as connection:
        connection.sendall(body[len(body) // 2 :])
        assert eventually(lambda: holdings(service).rows["jobs"] == before + 1)
    again = service.http.post("/jobs", content=body, headers={**MULTIPART, **key})
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert again.json()["id"] == service.store.list(1).jobs[0].id
    assert holdings(service).rows["jobs"] == before + 1


def test_a_killed_service_keeps_no_key_and_a_slow_upload_does(tmp_path: Path, teacher: bytes, key: Headers) -> None:
    body = submission(teacher)
    lease_seconds = scaled(0.6)
    short = {"DFKD_REQUEST_LEASE_SECONDS": str(lease_seconds)}
    with running_service(tmp_path / "data", **short) as first, half_a_request(first, body, key):
        assert eventually(lambda: bool(holdings(first).open_files))
        time.sleep(2.5 * lease_seconds)
        assert code_of_another(first, body, key) == "request-in-progress"
        os.kill(first.pid, signal.SIGKILL)
    with running_service(tmp_path / "data", **short) as second:
        assert eventually(lambda: code_of_another(second, body, key) == "202")
        assert holdings(second).rows["jobs"] == 1


@contextmanager
def losing_proxy(url: str) -> Iterator[str]:
    """Passes every POST on, and loses the answer to the first of each kind."""
    lost: set[str] = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            response = httpx.post(url + self.path, content=content, headers=dict(self.headers), timeout=PATIENCE)
            if self.path not in lost:
                lost.add(self.path)
                self.close_connection = True
                return
            self.send_response(response.status_code)
            self.send_header("Content-Type", response.headers["content-type"])
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_client_sends_again_what_got_lost(tmp_path: Path, teacher: bytes) -> None:
    file = tmp_path / "teacher.onnx"
    file.write_bytes(teacher)
    with running_service(tmp_path / "data") as service:
        with losing_proxy(service.url) as url, Client(url, patience_seconds=PATIENCE) as client:
            job = client.submit(file, SPEC)
            known = client.submit(job.teacher.id, SPEC, key="my-own")
            assert client.submit(job.teacher.id, SPEC, key="my-own").id == known.id
            with pytest.raises(Refused, match="idempotency-key-reused"):
                client.submit(job.teacher.id, {**SPEC, "name": "another"}, key="my-own")
            assert client.cancel(job.id).state == "cancelled"
        assert {found.id for found in service.store.list(10).jobs} == {job.id, known.id}


def test_a_whole_response_that_an_older_version_stored_is_sent_again(
    service: Service, queued: str, key: Headers
) -> None:
    first = service.http.post(f"/jobs/{queued}/cancel", headers=key)
    older = {"status": 202, "headers": {"location": "/jobs/x", "content-type": "application/json"}, "body": '{"a": 1}'}
    set_answer(service.store, key["Idempotency-Key"], json.dumps(older))
    again = service.http.post(f"/jobs/{queued}/cancel", headers=key)
    assert first.status_code == again.status_code == 202
    assert (again.json(), again.headers["location"]) == ({"a": 1}, "/jobs/x")
    assert again.headers["idempotency-replayed"] == "true"


def test_an_older_version_finds_a_response_to_come_again(service: Service, queued: str, key: Headers) -> None:
    service.http.post(f"/jobs/{queued}/cancel", headers=key)
    stored = json.loads(set_answer(service.store, key["Idempotency-Key"], "{}"))
    assert (stored["status"], stored["body"]) == (503, "")
    assert stored["headers"] == {"retry-after": "2"}


def test_a_repeated_answer_is_about_the_time_of_the_first(service: Service, teacher: bytes, key: Headers) -> None:
    body = submission(teacher)
    first = service.http.post("/jobs", content=body, headers={**MULTIPART, **key})
    time.sleep(1.1)  # Retry-After and durations would differ by whole seconds if they were computed anew
    again = service.http.post("/jobs", content=body, headers={**MULTIPART, **key})
    assert without_request_id(again) == without_request_id(first)
    assert {"location", "retry-after", "etag", "cache-control"} <= again.headers.keys()
