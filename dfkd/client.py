"""Python client: the same contract as the server, typed, synchronous, without torch.

    with DfkdClient("http://127.0.0.1:8000") as client:
        job = client.submit(Path("teacher.onnx"), {"student": {"architecture": "lenet5_half"}})
        job = client.wait(job.id)
        if job.state == "succeeded":
            client.download(job.id, Path("out"))

A refusal is raised as `Refused`, with the problem that the service sent; a service that cannot be reached as
`Unreachable`. While the service is away, what was asked is asked again, and so is what came too often, when its time
has come; every POST carries an Idempotency-Key, so that it takes place once however often it is sent.
"""

import hashlib
import json
import math
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from dfkd.credentials import bearer
from dfkd.multipart_encoder import CHUNK_BYTES, chunks, framed, multipart_frame
from dfkd.wire.artifact import ArtifactList, ArtifactView
from dfkd.wire.deletion import PurgeView
from dfkd.wire.event import EventPage, EventView
from dfkd.wire.health import Readiness
from dfkd.wire.job import JobList, JobView
from dfkd.wire.menu import Menu, StudentsFor, StudentView
from dfkd.wire.model import Answer
from dfkd.wire.problem import Problem
from dfkd.wire.quota import QuotaView
from dfkd.wire.teacher import TeacherView

Json = Mapping[str, Any]  # Any: JSON
V = TypeVar("V", bound=Answer)

PATIENCE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 5.0
REPEAT_SECONDS = 10.0  # a POST is repeated for at most so long: somebody sits in front of it
_TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=120.0)  # the inspection of a large teacher takes its time
_AWAY = {502, 503, 504}  # said by proxies and by a service without its database: asking again is safe


class ClientError(Exception):
    """Anything that keeps the client from giving an answer."""


class Refused(ClientError):
    """The service refused; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem


class Unreachable(ClientError):
    """The service does not answer, or what answers is not this service."""


class WaitTimeout(ClientError):
    """The job was still live when the time was up; it goes on."""

    def __init__(self, job: JobView) -> None:
        super().__init__(f"job {job.id} is still {job.state}")
        self.job = job


class Damaged(ClientError):
    """A download does not have the digest that the service announced; nothing was kept."""


class DfkdClient:
    """One service. Safe to share between threads, as its httpx client is."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`api_key`: when absent, DFKD_API_KEY or the file that DFKD_API_KEY_FILE names. BadOption.

        `patience_seconds`: how long a request is repeated while the service is away; a POST for 10 at most.
        """
        self.url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._http = httpx.Client(base_url=self.url, timeout=_TIMEOUT, auth=bearer(api_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, teacher: Path | str, spec: Json, *, key: str | None = None) -> JobView:
        """Send a teacher's file (Path), or name one that is there already (its id), and the spec → the queued job.

        `key`: Idempotency-Key, new by default. With one of your own, calling this again, even from another process,
        makes no second job.
        """
        if isinstance(teacher, str):
            body = {**spec, "teacher": {**spec.get("teacher", {}), "id": teacher}}
            headers = {"Content-Type": "application/json"}
            response = self._post("/jobs", content=json.dumps(body).encode, headers=headers, key=key)
            return self._view(JobView, response)
        with teacher.open("rb") as file:
            boundary = f"dfkd-{os.urandom(16).hex()}"
            head, tail = multipart_frame(boundary, spec)
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head) + os.fstat(file.fileno()).st_size + len(tail)),
            }
            response = self._post("/jobs", content=lambda: framed(head, file, tail), headers=headers, key=key)
            return self._view(JobView, response)

    def upload(self, teacher: Path) -> TeacherView:
        """Upload a teacher for later jobs; the transfer is checked by its digest."""
        with teacher.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(os.fstat(file.fileno()).st_size),
                "X-Content-SHA256": digest,
            }
            return self._view(TeacherView, self._post("/teachers", content=lambda: chunks(file), headers=headers))

    def teacher(self, teacher_id: str) -> TeacherView:
        """What is known of an uploaded teacher."""
        return self._view(TeacherView, self._read(f"/teachers/{_part(teacher_id)}"))

    def job(self, job_id: str) -> JobView:
        """The job as it is now."""
        return self._view(JobView, self._read(f"/jobs/{_part(job_id)}"))

    def jobs(
        self,
        *,
        limit: int = 20,
        cursor: str | None = None,
        states: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> JobList:
        """One page of jobs, newest first."""
        query: list[tuple[str, str]] = [("limit", str(limit))]
        query += [("cursor", cursor)] if cursor else []
        query += [("state", state) for state in states]
        query += [("label", f"{key}={value}") for key, value in (labels or {}).items()]
        return self._view(JobList, self._read("/jobs", params=query))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[EventView]:
        """The history so far, oldest first, after the event number `after`."""
        while True:
            page = self._view(EventPage, self._read(f"/jobs/{_part(job_id)}/events", params=[("after", str(after))]))
            if not page.events:
                return
            yield from page.events
            after = page.last_seq

    def wait(
        self,
        job_id: str,
        *,
        timeout_seconds: float | None = None,
        on_update: Callable[[JobView], None] | None = None,
    ) -> JobView:
        """Return the job as soon as it is terminal, whichever way it ended; look at `state`.

        A service that restarts or is away for less than `patience_seconds` is waited for. Raises WaitTimeout; the job
        goes on.
        """
        ends = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        job, etag = None, ""
        while True:
            response = self._read(f"/jobs/{_part(job_id)}", headers={"If-None-Match": etag} if etag else {})
            if response.status_code != 304 or job is None:
                job, etag = self._view(JobView, response), response.headers.get("etag", "")
                if on_update is not None:
                    on_update(job)
            if job.terminal:
                return job
            left = math.inf if ends is None else ends - time.monotonic()
            if left <= 0:
                raise WaitTimeout(job)
            time.sleep(min(left, _seconds(response.headers.get("retry-after"), otherwise=1.0)))

    def cancel(self, job_id: str) -> JobView:
        """Ask for a cancel; a running job is `cancelling` until its worker has stopped it."""
        return self._view(JobView, self._post(f"/jobs/{_part(job_id)}/cancel"))

    def pause(self, job_id: str) -> JobView:
        """Stop a job with a checkpoint, for as long as you like; a running one is `pausing` until it has stopped."""
        return self._view(JobView, self._post(f"/jobs/{_part(job_id)}/pause"))

    def resume(self, job_id: str) -> JobView:
        """Let a paused job go on where it was."""
        return self._view(JobView, self._post(f"/jobs/{_part(job_id)}/resume"))

    def retry(self, job_id: str) -> JobView:
        """Run a finished job once more → the new job."""
        return self._view(JobView, self._post(f"/jobs/{_part(job_id)}/retry"))

    def continue_(self, job_id: str, changes: Json) -> JobView:
        """Go on with a finished job, with `changes` of its spec: `distillation.budget`, name, labels → the new job."""
        headers = {"Content-Type": "application/json"}
        content = json.dumps(changes).encode
        return self._view(JobView, self._post(f"/jobs/{_part(job_id)}/continue", content=content, headers=headers))

    def delete(self, job_id: str) -> PurgeView:
        """Delete a terminal job and its files → what went, and what stays and why."""
        return self._view(PurgeView, _checked(self._http_call("DELETE", f"/jobs/{_part(job_id)}")))

    def delete_teacher(self, teacher_id: str) -> PurgeView:
        """Delete a teacher that no live job uses → what went, and what stays and why."""
        return self._view(PurgeView, _checked(self._http_call("DELETE", f"/teachers/{_part(teacher_id)}")))

    def artifacts(self, job_id: str) -> list[ArtifactView]:
        """What can be downloaded; empty until the job has succeeded."""
        return self._view(ArtifactList, self._read(f"/jobs/{_part(job_id)}/artifacts")).artifacts

    def download(self, job_id: str, directory: Path) -> list[Path]:
        """All files of a succeeded job → their paths in `directory`.

        Each is verified against its sha256 before it appears under its name. Raises Damaged, and Refused where there
        are none.
        """
        directory.mkdir(parents=True, exist_ok=True)
        files = self.artifacts(job_id)
        if not files:  # the service says why there are none
            self._read(f"/jobs/{_part(job_id)}/artifacts/student.onnx")
        return [self._download(artifact, directory) for artifact in files]

    def menu(self, *, input_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, width: float = 1.0) -> Menu:
        """What can be asked for; students are sized for `input_shape` (C, H, W), the classes and the width."""
        channels, height, columns = input_shape
        sized_for = StudentsFor(
            channels=channels, height=height, width=columns, num_classes=num_classes, student_width=width
        )
        return self._view(Menu, self._read("/menu", params=[(name, str(value)) for name, value in sized_for]))

    def students(
        self, *, input_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, width: float = 1.0
    ) -> list[StudentView]:
        """The catalogue, with parameters and multiply-adds for one input."""
        return self.menu(input_shape=input_shape, num_classes=num_classes, width=width).students

    def quota(self) -> QuotaView:
        """What one may have, and what one has."""
        return self._view(QuotaView, self._read("/quota"))

    def ready(self) -> Readiness:
        """What works and what does not; asks once."""
        return Readiness.model_validate(_json(self._http_call("GET", "/readyz")))

    def _download(self, artifact: ArtifactView, directory: Path) -> Path:
        """Into a temporary file beside the target, verified, then renamed."""
        target = directory / Path(artifact.name).name
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest = self._fetch(artifact.url, file.write)
                file.flush()
                os.fsync(file.fileno())
            if digest != artifact.sha256:
                raise Damaged(f"{artifact.name} arrived damaged: its sha256 is not the announced one")
            os.chmod(name, 0o644)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return target

    def _fetch(self, url: str, write: Callable[[bytes], int]) -> str:
        """Stream a download into `write` → sha256 of what came."""
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                if response.status_code != 200:
                    response.read()
                    raise _refusal(response)
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    digest.update(chunk)
                    write(chunk)
        except httpx.TransportError as error:
            raise Unreachable(f"the download from {self.url} broke off: {_said(error)}") from None
        return digest.hexdigest()

    def _read(
        self, path: str, *, params: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """GET, repeated while the service is away."""

        def send() -> httpx.Response:
            return self._http_call("GET", path, params=list(params), headers=dict(headers or {}))

        return self._patiently(send, seconds=self._patience_seconds)

    def _post(
        self,
        path: str,
        *,
        content: Callable[[], Iterator[bytes] | bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """POST under one key, repeated while the service is away; `content` begins anew each time."""
        told = {**(headers or {}), "Idempotency-Key": key or str(uuid.uuid4())}

        def send() -> httpx.Response:
            return self._http_call("POST", path, content=content and content(), headers=told)

        return self._patiently(send, seconds=min(self._patience_seconds, REPEAT_SECONDS))

    def _patiently(self, ask: Callable[[], httpx.Response], *, seconds: float) -> httpx.Response:
        """Ask again, with growing pauses, while the service is away; where it says when, then."""
        ends, pause = time.monotonic() + seconds, 0.25
        while True:
            try:
                response = ask()
                pause = max(pause, _told_to_wait(response))
                if not _passes(response) or time.monotonic() + pause > ends:
                    return _checked(response)
            except Unreachable:
                if time.monotonic() + pause > ends:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _http_call(self, method: str, path: str, **options: Any) -> httpx.Response:  # Any: httpx's own options
        try:
            return self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"no answer from {self.url}: {_said(error)}") from None

    def _view(self, view: type[V], response: httpx.Response) -> V:
        try:
            return view.model_validate(_json(response))
        except ValueError:
            raise Unreachable(f"what answers at {self.url} is not this service") from None


def _passes(response: httpx.Response) -> bool:
    """Whether this answer is worth asking again: the service is away, or still at the same request."""
    if response.status_code == 409:
        refusal = _refusal(response)
        return isinstance(refusal, Refused) and refusal.problem.code == "request-in-progress"
    return response.status_code in _AWAY or _told_to_wait(response) > 0


def _told_to_wait(response: httpx.Response) -> float:
    """For how many seconds too many requests, or a quota, keep this one out; 0 where nobody said so."""
    return _seconds(response.headers.get("retry-after"), otherwise=0.0) if response.status_code == 429 else 0.0


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


def _seconds(text: str | None, *, otherwise: float) -> float:
    return float(text) if text is not None and text.isdigit() else otherwise


def _part(text: str) -> str:
    """One segment of a path, whatever somebody typed."""
    return quote(text, safe="")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
