"""Python client: the same contract as the server, typed, synchronous, without torch.

    with Client("http://127.0.0.1:8000") as client:
        job = client.submit(Path("teacher.onnx"), {"student": {"architecture": "lenet5_half"}})
        job = client.wait(job.id)
        if job.state == "succeeded":
            client.download(job.id, Path("out"))

A refusal is raised as `Refused`, with the problem that the service sent. A service that cannot be reached is raised as
`Unreachable`. Requests are retried on 502, 503 and 504, and on 429 after Retry-After; every POST carries an
Idempotency-Key, so that it takes effect once however often it is sent.
"""

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx

from dfkd.errors import BadTeacher, ClientError, Damaged, Refused, Unreachable, UsageError, WaitTimeout
from dfkd.external_data import one_file
from dfkd.multipart_encoder import CHUNK_BYTES, chunks, framed, multipart_frame
from dfkd.transport import Transport, retry_after
from dfkd.wire.artifact import ArtifactList, ArtifactView
from dfkd.wire.deletion import PurgeView
from dfkd.wire.event import EventPage, EventView
from dfkd.wire.health import Readiness
from dfkd.wire.job import JobList, JobView
from dfkd.wire.menu import Menu, StudentsFor, StudentView
from dfkd.wire.plan import PlanView
from dfkd.wire.quota import QuotaView
from dfkd.wire.teacher import TeacherView

__all__ = [
    "BadTeacher",
    "Client",
    "ClientError",
    "Damaged",
    "DfkdClient",
    "Refused",
    "Unreachable",
    "UsageError",
    "WaitTimeout",
]

Json = Mapping[str, Any]  # Any: JSON

PATIENCE_SECONDS = 60.0


class Client:
    """One service. Safe to share between threads."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Connect when the first request is made.

        `api_key`: default is DFKD_API_KEY, or the content of the file that DFKD_API_KEY_FILE names.
        `patience_seconds`: how long a request is retried while the service is away; a POST for at most 10 seconds.

        Raises:
            UsageError: the API key cannot be used.
        """
        self._transport = Transport(url, api_key=api_key, patience_seconds=patience_seconds)
        self.url = self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.http.close()

    def submit(self, teacher: Path | str, spec: Json, *, key: str | None = None) -> JobView:
        """Send a teacher's file (Path), or the id of an uploaded teacher (str), with the spec → the queued job.

        `key`: the Idempotency-Key; the same request under the same key makes one job. Default: a new one.

        Raises:
            BadTeacher: the file keeps its weights in other files, which cannot be put into one with it.
        """
        return self._transport.parse(JobView, self._post_teacher("/jobs", teacher, spec, key=key))

    def plan(self, teacher: Path | str, spec: Json) -> PlanView:
        """Ask what a job would take: seconds and memory of every effort and method on each class of workers."""
        return self._transport.parse(PlanView, self._post_teacher("/plans", teacher, spec))

    def _post_teacher(self, path: str, teacher: Path | str, spec: Json, *, key: str | None = None) -> httpx.Response:
        if isinstance(teacher, str):
            document = {**spec, "teacher": {**spec.get("teacher", {}), "id": teacher}}
            headers = {"Content-Type": "application/json"}
            return self._transport.post(path, content=json.dumps(document).encode, headers=headers, key=key)
        with one_file(teacher) as one, one.open("rb") as file:
            return self._post_parts(path, file, spec, headers={}, key=key)

    def _post_parts(
        self, path: str, file: BinaryIO, spec: Json, *, headers: Mapping[str, str], key: str | None = None
    ) -> httpx.Response:
        boundary = f"dfkd-{os.urandom(16).hex()}"
        head, tail = multipart_frame(boundary, spec)
        framing = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + os.fstat(file.fileno()).st_size + len(tail)),
        }
        return self._transport.post(
            path, content=lambda: framed(head, file, tail), headers={**headers, **framing}, key=key
        )

    def upload_teacher(self, teacher: Path, spec: Json | None = None) -> TeacherView:
        """Upload a teacher for later jobs; the service checks the transfer by its digest.

        `spec`: what is said of the teacher, as in a job's spec: {"teacher": {"input": {"shape": [3, 32, 32]}}}. It is
        kept with the teacher, and jobs need not repeat it.

        Raises:
            BadTeacher: the file keeps its weights in other files, which cannot be put into one with it.
        """
        with one_file(teacher) as one, one.open("rb") as file:
            headers = {"X-Content-SHA256": hashlib.file_digest(file, "sha256").hexdigest()}
            if spec is not None:
                return self._transport.parse(TeacherView, self._post_parts("/teachers", file, spec, headers=headers))
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Length"] = str(os.fstat(file.fileno()).st_size)
            response = self._transport.post("/teachers", content=lambda: chunks(file), headers=headers)
            return self._transport.parse(TeacherView, response)

    upload = upload_teacher  # its name in earlier versions

    def teacher(self, teacher_id: str) -> TeacherView:
        """Return what is known of an uploaded teacher."""
        return self._transport.parse(TeacherView, self._transport.get(f"/teachers/{_segment(teacher_id)}"))

    def job(self, job_id: str) -> JobView:
        """Return the job as it is now."""
        return self._transport.parse(JobView, self._transport.get(_path(job_id)))

    def jobs(
        self,
        *,
        limit: int = 20,
        cursor: str | None = None,
        states: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> JobList:
        """Return one page of jobs, newest first; `next_cursor` of a page is the `cursor` of the following one."""
        query: list[tuple[str, str]] = [("limit", str(limit))]
        query += [("cursor", cursor)] if cursor else []
        query += [("state", state) for state in states]
        query += [("label", f"{key}={value}") for key, value in (labels or {}).items()]
        return self._transport.parse(JobList, self._transport.get("/jobs", params=query))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[EventView]:
        """Yield the history of a job so far, oldest first, without the events up to number `after`."""
        while True:
            response = self._transport.get(_path(job_id, "events"), params=[("after", str(after))])
            page = self._transport.parse(EventPage, response)
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
        """Return the job as soon as it is terminal. `state` says whether it succeeded, failed or was cancelled.

        `on_update` is called with every new version of the job. A service that restarts, or is away for less than
        `patience_seconds`, does not end the wait.

        Raises:
            WaitTimeout: the job is still live after `timeout_seconds`. The job goes on.
        """
        ends = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        job, etag = None, ""
        while True:
            response = self._transport.get(_path(job_id), headers={"If-None-Match": etag} if etag else {})
            if response.status_code != 304 or job is None:
                job, etag = self._transport.parse(JobView, response), response.headers.get("etag", "")
                if on_update is not None:
                    on_update(job)
            if job.terminal:
                return job
            left = math.inf if ends is None else ends - time.monotonic()
            if left <= 0:
                raise WaitTimeout(job)
            time.sleep(min(left, retry_after(response, otherwise=1.0)))

    def cancel(self, job_id: str) -> JobView:
        """Ask for a cancel; a running job is `cancelling` until its worker has stopped it."""
        return self._change(job_id, "cancel")

    def pause(self, job_id: str) -> JobView:
        """Stop a job with a checkpoint until it is resumed; a running job is `pausing` until it has stopped."""
        return self._change(job_id, "pause")

    def resume(self, job_id: str) -> JobView:
        """Let a paused job go on from its checkpoint."""
        return self._change(job_id, "resume")

    def retry(self, job_id: str) -> JobView:
        """Run a finished job once more → the new job."""
        return self._change(job_id, "retry")

    def continue_(self, job_id: str, changes: Json) -> JobView:
        """Go on with a finished job, with `changes` of its spec: `distillation.budget`, name, labels → the new job."""
        headers = {"Content-Type": "application/json"}
        content = json.dumps(changes).encode
        response = self._transport.post(_path(job_id, "continue"), content=content, headers=headers)
        return self._transport.parse(JobView, response)

    def _change(self, job_id: str, verb: str) -> JobView:
        return self._transport.parse(JobView, self._transport.post(_path(job_id, verb)))

    def delete(self, job_id: str) -> PurgeView:
        """Delete a terminal job and its files → what was deleted, and what stays and why."""
        return self._transport.parse(PurgeView, self._transport.delete(_path(job_id)))

    def delete_teacher(self, teacher_id: str) -> PurgeView:
        """Delete a teacher that no live job uses → what was deleted, and what stays and why."""
        return self._transport.parse(PurgeView, self._transport.delete(f"/teachers/{_segment(teacher_id)}"))

    def artifacts(self, job_id: str) -> list[ArtifactView]:
        """Return the files that can be downloaded; empty until the job has succeeded."""
        return self._transport.parse(ArtifactList, self._transport.get(_path(job_id, "artifacts"))).artifacts

    def download(self, job_id: str, directory: Path) -> list[Path]:
        """Download all files of a succeeded job and return their paths in `directory`.

        Each file is verified by its sha256 before it appears under its name.

        Raises:
            Damaged: a file does not have the announced digest.
            Refused: the job has no files.
        """
        directory.mkdir(parents=True, exist_ok=True)
        files = self.artifacts(job_id)
        if not files:  # the service says why there are none
            self._transport.get(_path(job_id, "artifacts/student.onnx"))
        return [self._download(artifact, directory) for artifact in files]

    def menu(self, *, input_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, width: float = 1.0) -> Menu:
        """Return methods, memories and students; students are sized for `input_shape` (C, H, W), classes and width."""
        channels, height, columns = input_shape
        sized_for = StudentsFor(
            channels=channels, height=height, width=columns, num_classes=num_classes, student_width=width
        )
        params = [(name, str(value)) for name, value in sized_for]
        return self._transport.parse(Menu, self._transport.get("/menu", params=params))

    def students(
        self, *, input_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, width: float = 1.0
    ) -> list[StudentView]:
        """Return the catalogue of students, with parameters and multiply-adds for one input."""
        return self.menu(input_shape=input_shape, num_classes=num_classes, width=width).students

    def quota(self) -> QuotaView:
        """Return the limits of this client's tenant, and how much of them is used."""
        return self._transport.parse(QuotaView, self._transport.get("/quota"))

    def ready(self) -> Readiness:
        """Return what works and what does not; asks once, and reads the answer whatever its status."""
        return Readiness.model_validate_json(self._transport.send("GET", "/readyz").content)

    def _download(self, artifact: ArtifactView, directory: Path) -> Path:
        """Write into a temporary file beside the target, verify it, rename it."""
        target = directory / Path(artifact.name).name
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=f".{target.name}.")
        digest = hashlib.sha256()
        try:
            with os.fdopen(descriptor, "wb") as file, self._transport.download(artifact.url) as response:
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != artifact.sha256:
                raise Damaged(f"{artifact.name} arrived damaged: its sha256 is not the announced one")
            os.chmod(name, 0o644)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return target


DfkdClient = Client
"""The name of `Client` in earlier versions."""


def _path(job_id: str, below: str = "") -> str:
    return f"/jobs/{_segment(job_id)}" + (f"/{below}" if below else "")


def _segment(text: str) -> str:
    """Return a text as one segment of a path: characters with a meaning in URLs are escaped."""
    return quote(text, safe="")
