"""The front door from outside: how a bad input gets there, what comes back, and what the service holds."""

import copy
import http.client
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from jobs.models import ArtifactRef, BestStudent
from tests.builders import onnx_teacher
from tests.patience import PATIENCE, until
from tests.service.harness import BOUNDARY, Service, eventually, multipart, row_counts

OCTETS = {"Content-Type": "application/octet-stream"}
FORM = f"multipart/form-data; boundary={BOUNDARY}"
SPEC: dict[str, Any] = {"student": {"architecture": "lenet5_half"}}
GOOD = json.dumps(SPEC).encode()
FRESH = onnx_teacher(seed=99)  # never accepted, so that its file would be noticed


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; without a status when the connection was closed instead."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a service holds: rows of every table, files with sizes, open descriptors but sockets, children."""

    rows: Mapping[str, int]
    files: Mapping[str, int]
    descriptors: tuple[str, ...]
    children: int


class Door:
    """A running service and a client of it. Every request bears `key`, which the test renews."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.key = str(uuid.uuid4())
        host, _, port = service.url.removeprefix("http://").partition(":")
        self.address = (host, int(port))
        self.known = onnx_teacher()
        answer = service.http.post("/teachers", content=self.known, headers=OCTETS)
        assert answer.status_code == 201, answer.text
        self.teacher_id = str(answer.json()["id"])
        self.jobs = self._make_jobs()

    def _make_jobs(self) -> dict[str, str]:
        """One that succeeded and has a report, one that was deleted, one that waits."""
        store = self.service.store
        finished = str(self.spec().json["id"])
        claimed = store.claim("a-test", lease_seconds=600, threads=1)
        assert claimed is not None
        assert claimed.job.id == finished
        report = self.service.settings.data_dir.parent / "report.json"
        report.write_text(json.dumps({"filler": "x" * 5000}))
        sha256, size = self.service.artifacts.put_file(report)
        reference = ArtifactRef(name="report.json", sha256=sha256, bytes=size, media_type="application/json")
        assert store.succeed(finished, claimed.fence, artifacts=[reference], best=BestStudent(step=1, agreement=0.9))
        self.renew()
        deleted = self.good()
        assert self.service.http.delete(f"/jobs/{deleted}").status_code == 200
        self.renew()
        return {"finished": finished, "deleted": deleted, "queued": str(self.spec().json["id"])}

    def another(self) -> "Door":
        """The same door with a key of its own, for another thread."""
        door = copy.copy(self)
        door.renew()
        return door

    def renew(self) -> None:
        """Another key."""
        self.key = str(uuid.uuid4())

    def send(
        self, method: str, path: str, content: bytes | Iterable[bytes] = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One well-formed request."""
        given = {"Idempotency-Key": self.key, **(headers or {})} if method == "POST" else dict(headers or {})
        try:
            answer = self.service.http.request(method, path, content=content, headers=given)
        except httpx.ReadError:  # an upload that was cut off: its answer may be lost, and is given again
            if not isinstance(content, bytes):
                raise
            answer = self.service.http.request(method, path, content=content, headers=given)
        return reply_of(answer)

    def teacher(self, content: bytes, **headers: str) -> Reply:
        """POST /teachers."""
        return self.send("POST", "/teachers", content, {**OCTETS, **headers})

    def form(self, body: bytes | Iterable[bytes], content_type: str = FORM) -> Reply:
        """POST /jobs with this multipart body."""
        return self.send("POST", "/jobs", body, {"Content-Type": content_type})

    def parts(self, *parts: tuple[str, bytes], end: bool = True) -> Reply:
        """POST /jobs with these parts."""
        return self.form(multipart(parts, end=end))

    def spec_text(self, text: bytes) -> Reply:
        """POST /jobs with this spec and a teacher."""
        return self.parts(("spec", text), ("teacher", FRESH))

    def spec(self, **members: Any) -> Reply:
        """POST /jobs with members of a spec changed, for a teacher that is here; nothing need be inspected."""
        teacher = {"id": self.teacher_id, **members.pop("teacher", {})}
        return self.json({**SPEC, **members, "teacher": teacher})

    def json(self, document: Any) -> Reply:
        """POST /jobs with a JSON body."""
        return self.send("POST", "/jobs", json.dumps(document).encode(), {"Content-Type": "application/json"})

    def raw(self, *pieces: bytes, end: bool = False, pause: float = 0.0, method: str = "GET") -> Reply:
        """Bytes on a connection of their own. `end`: then no more will be sent."""
        with self.connect() as opened:
            try:
                for piece in pieces:
                    opened.sendall(piece)
                    time.sleep(pause)
                if end:
                    opened.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it was closed in mid-sentence; what it said before can still be read
            return read_reply(opened, method=method)

    def connect(self) -> socket.socket:
        """A connection of one's own."""
        return socket.create_connection(self.address, timeout=PATIENCE)

    def head(self, request_line: str, *lines: str) -> bytes:
        """The head of a raw request, with the key."""
        return "\r\n".join([request_line, "Host: door", f"Idempotency-Key: {self.key}", *lines, "", ""]).encode(
            "latin-1"
        )

    def queued_job(self) -> str:
        """A job that waits."""
        return self.jobs["queued"]

    def finished_job(self) -> str:
        """A job that succeeded, of whose files only the report is still there."""
        return self.jobs["finished"]

    def deleted_job(self) -> str:
        """A job that is no more."""
        return self.jobs["deleted"]

    def good(self) -> str:
        """A good request under the key of the bad one; the job's id. It is cancelled, so that nobody waits for it.

        A refusal can arrive before the service has let go of the key; until then the good request is sent again.
        """
        answer = until(self._spec_under_a_free_key)
        assert answer.status == 202, answer.text
        assert "idempotency-replayed" not in answer.headers
        job_id = str(answer.json["id"])
        assert self.service.http.post(f"/jobs/{job_id}/cancel").status_code == 202
        return job_id

    def _spec_under_a_free_key(self) -> Reply | None:
        answer = self.spec()
        return None if answer.status == 409 and answer.json["code"] == "request-in-progress" else answer

    def holdings(self) -> Holdings:
        """What the service holds now."""
        data_dir = self.service.settings.data_dir.resolve()
        files = {
            str(path.relative_to(data_dir)): path.stat().st_size
            for path in sorted(data_dir.rglob("*"))
            if path.is_file() and not path.name.startswith("ledger.sqlite3")
        }
        children = len(psutil.Process(self.service.pid).children(recursive=True))
        return Holdings(row_counts(self.service.settings), files, descriptors(self.service.pid), children)

    def memory_bytes(self) -> int:
        """Resident memory of the API process."""
        return int(psutil.Process(self.service.pid).memory_info().rss)

    def holds(self, before: Holdings) -> bool:
        """Whether it holds, soon, what it held before: connections that were cut need a moment."""
        return eventually(lambda: self.holdings() == before)


def descriptors(pid: int) -> tuple[str, ...]:
    """What the descriptors of a process are, sockets and those of the database left out: they come and go in pools."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(path)
        except FileNotFoundError:
            continue  # closed since it was listed
        if not target.startswith("socket:") and "ledger.sqlite3" not in target:
            found.append(target.split(":")[0])
    return tuple(sorted(found))


def reply_of(answer: httpx.Response) -> Reply:
    return Reply(answer.status_code, dict(answer.headers), answer.content)


def read_reply(opened: socket.socket, *, method: str = "GET") -> Reply:
    """The first reply on a connection."""
    answer = http.client.HTTPResponse(opened, method=method)
    try:
        answer.begin()
        return Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
    except (OSError, http.client.HTTPException):
        return Reply(None)
    finally:
        answer.close()


Send = Callable[[Door], Reply]


@dataclass(frozen=True, slots=True)
class Octets:
    """POST /teachers with this file; large ones are made when they are sent."""

    content: bytes | Callable[[], bytes]

    def __call__(self, door: Door) -> Reply:
        return door.teacher(self.content if isinstance(self.content, bytes) else self.content())


@dataclass(frozen=True, slots=True)
class Input:
    """One bad input, or one good input that looks bad."""

    row: str
    what: str
    send: Send
    status: int | None  # None: the connection is closed
    code: str | None = None  # None: no problem, or one in plain text
    pointer: str | None = None
    hint: bool = False
    secrets: tuple[str, ...] = ()  # what the answer must not repeat
    slow: bool = False
    guarded: bool = False  # sent to a service that has keys, which is a door of its own

    @property
    def refused(self) -> bool:
        return self.status is None or self.status >= 400

    @property
    def expected(self) -> str:
        """Status and code."""
        return " ".join(str(part) for part in (self.status or "closed", self.code) if part)
