"""The history of a client: every call with its beginning and its outcome, if that is known."""

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from tests.patience import PATIENCE, scaled

Outcome = Literal["invoke", "ok", "refused", "unknown"]  # unknown: nobody can tell whether it took place
TERMINAL = {"succeeded", "failed", "cancelled"}
_TIMEOUT = httpx.Timeout(scaled(20.0), connect=scaled(5.0))
_UNDECIDED = {409, 503, 507}


@dataclass(slots=True)
class Call:
    """One call of one client. Times are of the monotonic clock."""

    verb: str  # submit, get, cancel, delete, download, upload
    began_at: float
    ended_at: float = float("inf")
    outcome: Outcome = "invoke"
    status: int | None = None
    code: str | None = None  # of the problem
    retry_after: bool = False
    key: str | None = None
    content: str | None = None  # of a submission, for sending it again
    job_id: str | None = None
    state: str | None = None
    fraction: float = 0.0
    step: int = 0
    attempt: int = 0
    name: str | None = None  # of a download
    sha256: str | None = None  # of the bytes that came
    etag: str | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_at - self.began_at


@dataclass(slots=True)
class History:
    """All calls, when there were faults, and what was lost by them. Safe to share between threads."""

    calls: list[Call] = field(default_factory=list)
    faults: list[list[float]] = field(default_factory=list)  # [beginning, end]: while the service itself may suffer
    losses: list[tuple[str, float]] = field(default_factory=list)  # job whose worker died, seconds since the epoch
    expected_codes: set[str] = field(default_factory=set)  # problems of status 5xx that a test has provoked
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def fault(self) -> Iterator[None]:
        """While inside, and for a while afterwards, 503 and 507 are honest answers."""
        window = [time.monotonic(), float("inf")]
        self.faults.append(window)
        try:
            yield
        finally:
            window[1] = time.monotonic()

    def lose_worker_of(self, job_id: str) -> None:
        """Note that the worker of this job has died just now."""
        self.losses.append((job_id, time.time()))

    def disturbed(self, call: Call, *, grace_seconds: float) -> bool:
        """Whether a call took place while there was a fault, or soon after."""
        return any(begin <= call.ended_at and call.began_at <= end + grace_seconds for begin, end in self.faults)

    def of(self, *verbs: str) -> list[Call]:
        """The calls of these kinds."""
        with self.lock:
            return [call for call in self.calls if call.verb in verbs]

    def slowest(self, verb: str, *, quantile: float = 0.99) -> float:
        """Seconds that so many of the finished calls of a kind took at most; 0 where there were none."""
        times = sorted(call.seconds for call in self.of(verb) if call.outcome in {"ok", "refused"})
        return times[min(len(times) - 1, int(quantile * len(times)))] if times else 0.0


class Client:
    """Asks once each time, and writes down what came of it."""

    def __init__(self, url: str, history: History, *, timeout: httpx.Timeout = _TIMEOUT) -> None:
        self.history = history
        self.http = httpx.Client(base_url=url, timeout=timeout, limits=httpx.Limits(max_keepalive_connections=0))

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def submit(self, teacher_id: str, spec: Mapping[str, Any], *, recipe: str) -> Call:
        """A job under a key of its own; key and recipe are labels, by which the auditor finds it in the ledger."""
        key = uuid.uuid4().hex
        body = {
            **spec,
            "teacher": {**spec.get("teacher", {}), "id": teacher_id},
            "labels": {"key": key, "recipe": recipe},
        }
        return self.submit_again(json.dumps(body), key)

    def submit_again(self, content: str, key: str) -> Call:
        """The same submission under the same key."""
        call = Call("submit", time.monotonic(), key=key, content=content)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return self._ask(call, lambda: self.http.post("/jobs", content=content, headers=headers))

    def get(self, job_id: str) -> Call:
        """The job as it is now."""
        call = Call("get", time.monotonic(), job_id=job_id)
        return self._ask(call, lambda: self.http.get(f"/jobs/{job_id}"))

    def cancel(self, job_id: str) -> Call:
        """Ask for a cancel."""
        call = Call("cancel", time.monotonic(), job_id=job_id)
        return self._ask(call, lambda: self.http.post(f"/jobs/{job_id}/cancel"))

    def delete(self, job_id: str) -> Call:
        """Delete a finished job."""
        call = Call("delete", time.monotonic(), job_id=job_id)
        return self._ask(call, lambda: self.http.delete(f"/jobs/{job_id}"))

    def upload(self, content: bytes | Iterator[bytes]) -> Call:
        """A teacher; `sha256` of the call is its id where it was taken."""
        call = Call("upload", time.monotonic())
        headers = {"Content-Type": "application/octet-stream"}
        return self._ask(call, lambda: self.http.post("/teachers", content=content, headers=headers))

    def download(self, job_id: str, name: str = "student.onnx") -> Call:
        """A file of a job, whole."""
        call = Call("download", time.monotonic(), job_id=job_id, name=name)
        return self._ask(call, lambda: self.http.get(f"/jobs/{job_id}/artifacts/{name}"))

    def settle(self, *, seconds: float = PATIENCE) -> None:
        """Send every submission whose outcome is not known again, under its key, until there is an answer."""
        calls = self.history.of("submit")
        settled = {call.key for call in calls if call.outcome == "ok" or _final(call)}
        doubtful = {call.key: call for call in calls if call.key not in settled}
        deadline = time.monotonic() + seconds
        for key, call in doubtful.items():
            assert key is not None
            assert call.content is not None
            while self.submit_again(call.content, key).outcome != "ok" and time.monotonic() < deadline:
                time.sleep(0.3)

    def _ask(self, call: Call, send: Callable[[], httpx.Response]) -> Call:
        with self.history.lock:
            self.history.calls.append(call)
        try:
            response = send()
        except httpx.TransportError:
            call.outcome = "unknown"
            call.ended_at = time.monotonic()
            return call
        call.ended_at = time.monotonic()
        _note(call, response)
        return call


def _final(call: Call) -> bool:
    return call.outcome == "refused" and call.status not in _UNDECIDED


def _note(call: Call, response: httpx.Response) -> None:
    call.status = response.status_code
    call.outcome = "ok" if response.status_code < 400 else "refused"
    call.retry_after = "retry-after" in response.headers
    if call.outcome == "refused":
        call.code = response.json().get("code")
    elif call.verb == "download":
        call.sha256 = hashlib.sha256(response.content).hexdigest()
        call.etag = response.headers["etag"].strip('"')
    elif call.verb == "upload":
        call.sha256 = response.json()["id"]
    elif call.verb != "delete" and response.content:  # what is deleted is answered by a receipt
        _note_job(call, response.json())


def _note_job(call: Call, job: Mapping[str, Any]) -> None:
    call.job_id, call.state, call.attempt = job["id"], job["state"], job["attempt"]
    call.fraction, call.step = job["progress"]["fraction"], job["progress"]["step"]


@contextmanager
def watching(client: Client, job_ids: Sequence[str], *, pause_seconds: float = 0.1) -> Iterator[None]:
    """Ask for these jobs, one after the other, all the time."""
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.is_set():
            for job_id in job_ids:
                client.get(job_id)
                stopped.wait(pause_seconds)

    thread = threading.Thread(target=watch, name="watcher")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
