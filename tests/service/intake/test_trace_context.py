"""The trace of a request stays with its job, and an invalid traceparent is ignored."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from service.intake.trace_context import traceparent_of
from tests.patience import PATIENCE
from tests.service.conftest import SPEC
from tests.service.harness import ROOT, eventually, multipart, post_parts, spec_text

IDS = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
TRACE = f"00-{IDS}-01"


def request_with(*values: str) -> Request:
    headers = [(b"traceparent", value.encode("latin-1")) for value in values]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize("value", [TRACE, f" {TRACE} ", f"01-{IDS}-01", f"cc-{IDS}-01-what-will-be"])
def test_a_trace_is_understood_in_every_version(value: str) -> None:
    assert traceparent_of(request_with(value)) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "", "00", TRACE + "-more", TRACE + "0", TRACE.upper(), TRACE[:-1], f"ff-{IDS}-01", f"cc-{IDS}-01.what",
        f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", f"é0-{IDS}-01",
        TRACE + "\n" + TRACE,
    ],
)  # fmt: skip
def test_what_is_no_trace_is_ignored(value: str) -> None:
    assert traceparent_of(request_with(value)) is None


def test_two_traces_are_none() -> None:
    assert traceparent_of(request_with(TRACE, TRACE)) is None
    assert traceparent_of(request_with()) is None


@pytest.mark.parametrize(("sent", "kept"), [(TRACE, TRACE), ("nonsense", None)])
def test_a_job_tells_the_trace_it_came_with(http: httpx.Client, teacher: bytes, sent: str, kept: str | None) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=a-boundary-of-ours", "traceparent": sent}
    parts = multipart([("spec", spec_text(SPEC)), ("teacher", teacher)])
    accepted = http.post("/jobs", content=parts, headers=headers)
    assert (accepted.status_code, accepted.json()["traceparent"]) == (202, kept)
    assert http.get(accepted.headers["location"]).json()["traceparent"] == kept
    spec = {**SPEC, "teacher": {"id": accepted.json()["teacher"]["id"]}}
    assert http.post("/jobs", json=spec, headers={"traceparent": sent}).json()["traceparent"] == kept


def test_a_job_without_a_trace_has_none(http: httpx.Client, teacher: bytes) -> None:
    assert post_parts(http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).json()["traceparent"] is None


def test_the_api_alone_logs_json_with_the_id_of_the_request(tmp_path: Path, teacher: bytes) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "DFKD_DATA_DIR": str(tmp_path / "data"), "DFKD_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "service", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        assert eventually_answers(url)
        with httpx.Client(base_url=url, headers={"traceparent": TRACE}, timeout=PATIENCE) as client:
            accepted = post_parts(client, [("spec", spec_text(SPEC)), ("teacher", teacher)])
    finally:
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
    lines = [json.loads(line) for line in said.splitlines()]
    (line,) = (line for line in lines if line["message"] == "job accepted")
    assert line["job_id"] == accepted.json()["id"]
    assert line["request_id"] == accepted.headers["x-request-id"]
    assert line["traceparent"] == TRACE


def test_the_api_alone_says_which_setting_is_wrong(tmp_path: Path) -> None:
    told = {"DFKD_LEASE_SECONDS": "soon", "DFKD_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "service"]
    ended = subprocess.run(command, env=told, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert ended.stderr.startswith("the API cannot start: DFKD_LEASE_SECONDS:")


def eventually_answers(url: str) -> bool:
    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200
        except httpx.TransportError:
            return False

    return eventually(answers)
