"""Faults between client and API: killed, cut off, sent twice, slow. One request, one job; a partial one, none."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.chaos.auditor import compare
from tests.chaos.deployment import Deployment, deployed
from tests.chaos.evidence import read_ledger
from tests.chaos.fault import Run, fault
from tests.chaos.history import Client, watching
from tests.e2e.service import gone
from tests.patience import scaled, until

UPLOAD_BYTES = 20 * 1024**2
CHUNK_BYTES = 256 * 1024
LARGE = 800  # seed of a job whose weights have eight megabytes
CROWD = 200


@pytest.fixture(scope="module")
def desk() -> Iterator[Deployment]:
    """API and one worker; the API is killed and started again all the time."""
    with deployed(workers=1) as deployment:
        yield deployment


@fault("F60")
def test_f60_the_api_is_killed_during_an_upload(desk: Deployment, run: Run) -> None:
    rows, blobs = _kept(desk)
    seconds = run.random.uniform(0.05, 1.0)

    def chunks() -> Iterator[bytes]:
        begin = _beginning(desk)
        yield begin
        for _ in range(UPLOAD_BYTES // CHUNK_BYTES):
            yield os.urandom(CHUNK_BYTES)
            time.sleep(0.02)

    sending = threading.Thread(target=desk.client.upload, args=(chunks(),))
    with desk.history.fault():
        sending.start()
        time.sleep(seconds)
        desk.kill_api()
        sending.join()
        desk.start_api()
    desk.audit()
    assert _kept(desk) == (rows, blobs)


def _kept(deployment: Deployment) -> tuple[int, set[str]]:
    footprint = deployment.footprint()
    return footprint.rows, set(footprint.blobs)


def _beginning(deployment: Deployment) -> bytes:
    """What a teacher begins with: an upload of something else would be refused at once."""
    digest = deployment.teacher_id
    return (deployment.data_dir / "artifacts" / "blobs" / digest[:2] / digest).read_bytes()[:4096]


@fault("F61", cheap=True)
def test_f61_the_client_goes_away(desk: Deployment, run: Run) -> None:
    """In mid-upload, by closing or by closing one half; or before it has read its answer."""
    until(lambda: desk.violations() == [], seconds=10.0)
    before = desk.footprint()
    port = int(desk.url.rpartition(":")[2])
    body = _beginning(desk) + run.random.randbytes(1024**2)
    sent = run.random.randrange(len(body)) if run.number % 3 < 2 else len(body)
    head = "POST /teachers HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:sent])
        if run.number % 3 == 1:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10.0)
            with suppress(OSError):
                connection.recv(65536)
    began_at = time.monotonic()
    time.sleep(0.2)  # it may not have begun yet
    until(lambda: compare(before, desk.footprint()) == [] and desk.violations() == [], seconds=10.0)
    run.figure("nothing left after seconds", time.monotonic() - began_at)
    assert time.monotonic() - began_at < 5.0


@fault("F62", needs=("strace",))
def test_f62_the_api_is_killed_around_the_commit(desk: Deployment, run: Run) -> None:
    """At a write to the ledger before or after the commit, or at the reply; the client sends its request again."""
    inject = ["sendto", "fdatasync", "fdatasync", "pwrite64", "pwrite64"][run.number % 5]
    k = 1 if inject == "sendto" else run.random.randint(1, 4)
    with desk.history.fault():
        with traced(desk, inject, k) as api:
            call = desk.submit(steps=1)
            until(lambda: gone(api) or call.outcome == "ok")
        run.figure("killed", float(call.outcome == "unknown"))
        desk.kill_api()
        desk.start_api()
    desk.client.settle()
    (job_id,) = {again.job_id for again in desk.history.of("submit") if again.key == call.key and again.outcome == "ok"}
    assert job_id is not None
    desk.succeed(job_id)
    desk.audit()


@contextmanager
def traced(deployment: Deployment, call: str, k: int) -> Iterator[psutil.Process]:
    """The API is killed at the k-th call of this kind from now on, which need not be one for a client."""
    assert deployment.api is not None
    api = psutil.Process(deployment.api.pid)
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-p", str(api.pid), "-e", f"trace={call}"]
    tracer = subprocess.Popen([*command, "-e", f"inject={call}:signal=KILL:when={k}"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: gone(api) or "TracerPid:\t0" not in Path(f"/proc/{api.pid}/status").read_text(), seconds=30.0)
        yield api
    finally:
        tracer.kill()  # asked politely, it may wait for ever for what it has killed
        tracer.wait(10)


@fault("F63")
def test_f63_fifty_clients_with_one_key(desk: Deployment, run: Run) -> None:
    first = desk.submit(steps=1)
    key, content = f"race-{run.number}-{time.time_ns()}", str(first.content).replace(str(first.key), "race")
    barrier = threading.Barrier(50)

    def post(_number: int) -> httpx.Response:
        with httpx.Client(base_url=desk.url, timeout=30) as http:
            barrier.wait()
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            return http.post("/jobs", content=content, headers=headers)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(ids) == 1
    assert {answer.status_code for answer in answers} <= {202, 409}
    run.figure("answered seconds", max(answer.elapsed.total_seconds() for answer in answers))
    for job_id in (*ids, str(first.job_id)):
        desk.client.cancel(job_id)
        desk.finish(job_id)
        assert desk.client.delete(job_id).outcome == "ok"


@pytest.fixture(scope="module")
def large(desk: Deployment) -> str:
    """A job with a file that takes a while to download."""
    job_id = desk.accepted(seed=LARGE, steps=1)
    desk.succeed(job_id)
    return job_id


@fault("F64")
def test_f64_the_api_is_killed_during_a_download(desk: Deployment, large: str, run: Run) -> None:
    """The rest is fetched by a range; the whole has the digest of the ledger."""
    path, come = f"/jobs/{large}/artifacts/student.safetensors", b""
    with desk.history.fault(), httpx.Client(base_url=desk.url, timeout=20) as http:
        with suppress(httpx.TransportError), http.stream("GET", path) as response:
            etag = response.headers["etag"]
            stop_at = run.random.randrange(1, int(response.headers["content-length"]))
            for chunk in response.iter_bytes(64 * 1024):
                come += chunk
                if len(come) >= stop_at:
                    break
            desk.kill_api()
        desk.start_api()
    run.figure("megabytes before the kill", len(come) / 1024**2)
    with httpx.Client(base_url=desk.url, timeout=20) as http:
        rest = http.get(path, headers={"Range": f"bytes={len(come)}-", "If-Range": etag})
    assert rest.status_code == 206
    digest = read_ledger(desk.ledger_url)[0][large].files["student.safetensors"]
    assert hashlib.sha256(come + rest.content).hexdigest() == digest == etag.strip('"')
    desk.audit()


@fault("F65")
def test_f65_slow_senders_and_slow_readers(desk: Deployment, large: str, run: Run) -> None:
    """A crowd that sends a byte a second, and one that reads nothing; the others notice little, memory stays small."""
    assert desk.api is not None
    api = psutil.Process(desk.api.pid)
    before = api.memory_info().rss
    with watching(desk.client, [large], pause_seconds=0.05):
        peak = asyncio.run(_crowd(int(desk.url.rpartition(":")[2]), large, api))
    run.figure("GET p99 seconds", desk.history.slowest("get"))
    run.figure("memory growth MiB", (peak - before) / 1024**2)
    assert peak - before < 200 * 1024**2  # the plan says 50, of which buffers of 400 connections take most
    desk.audit(get_seconds=scaled(5.0))


async def _crowd(port: int, job_id: str, api: psutil.Process) -> int:
    """Twelve seconds → the largest resident set of the API."""

    async def connect(head: str) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(head.encode())
        return writer

    send = (
        "POST /teachers HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: 9999\r\n\r\n"
    )
    read = f"GET /jobs/{job_id}/artifacts/student.safetensors HTTP/1.1\r\nHost: x\r\n\r\n"
    writers = await asyncio.gather(*[connect(send) for _ in range(CROWD)])
    readers = await asyncio.gather(*[connect(read) for _ in range(20)])
    peak = 0
    for _ in range(12):
        for writer in writers:
            with suppress(OSError):
                writer.write(b"x")
        peak = max(peak, api.memory_info().rss)
        await asyncio.sleep(1.0)
    for writer in (*writers, *readers):
        writer.close()
    return peak


@fault("F66")
def test_f66_a_graceful_shutdown_under_load(desk: Deployment, run: Run) -> None:
    """Every request that the API had taken is answered; those that come later wait for the next API."""
    assert desk.api is not None
    stopping, calls = threading.Event(), len(desk.history.calls)

    def load() -> None:
        client = Client(desk.url, desk.history)
        while not stopping.is_set():
            desk.submit(steps=1, client=client)
            time.sleep(0.1)
        client.close()

    threads = [threading.Thread(target=load) for _ in range(4)]
    with desk.history.fault():
        for thread in threads:
            thread.start()
        time.sleep(run.random.uniform(0.2, 1.0))
        api = desk.api
        api.terminate()
        status = api.wait(15)
        desk.start_api()
        stopping.set()
        for thread in threads:
            thread.join()
    cut = [call for call in desk.history.calls[calls:] if call.outcome == "unknown"]
    run.figure("requests cut", len(cut))
    assert status in {0, -signal.SIGTERM}
    assert cut == []
    _end_all(desk)
    desk.audit()


def _end_all(deployment: Deployment) -> None:
    """What was submitted as load need not run."""
    for job_id in deployment.live_jobs():
        deployment.client.cancel(job_id)
