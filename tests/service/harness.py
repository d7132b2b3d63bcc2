"""A real service in its own process, the data that it holds, and request bodies in the forms of various clients."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import create_engine, text

from jobs.files.artifacts import ArtifactStore, open_artifacts
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = "service.app:create_app"
BOUNDARY = "a-boundary-of-ours"

Part = tuple[str, bytes]


@dataclass(slots=True)
class Service:
    """A running service, and the same ledger and files from outside."""

    url: str
    pid: int
    settings: Settings
    http: httpx.Client
    store: Store
    artifacts: ArtifactStore


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a service holds: rows of every table, files with their sizes, descriptors of files, children."""

    rows: dict[str, int]
    files: dict[str, int]
    open_files: list[str]
    children: int


@contextmanager
def running_service(
    data_dir: Path, *, port: int = 0, application: str = APPLICATION, **environment: str
) -> Iterator[Service]:
    """uvicorn with the function that makes the application, on a loopback port: a free one, or `port`."""
    variables = {"DFKD_DATA_DIR": str(data_dir), "DFKD_INSPECTION_TIMEOUT_SECONDS": str(PATIENCE), **environment}
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = start_server(listener, data_dir, variables, application)
    shared = ("database_url", "artifacts_url", "artifacts_endpoint_url")
    known = {name: environment.get(f"DFKD_{name.upper()}") for name in shared}
    settings = Settings(data_dir=data_dir, **known)
    try:
        wait_for(url, process)
        store = open_store(settings)
        with httpx.Client(base_url=url, timeout=PATIENCE) as http:
            yield Service(url, process.pid, settings, http, store, open_artifacts(settings))
        store.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def start_server(
    listener: socket.socket, data_dir: Path, variables: Mapping[str, str], application: str = APPLICATION
) -> subprocess.Popen[bytes]:
    """The server process; it takes over the listening socket."""
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "uvicorn", "--factory", application, "--fd", str(listener.fileno())]
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log:
        return subprocess.Popen(
            [
                *command,
                "--http",
                "service.middleware.h11_protocol:Protocol",
                "--log-level",
                "warning",
                "--timeout-graceful-shutdown",
                "2",
            ],
            cwd=ROOT,
            env={**os.environ, **variables},
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
        )


def log_of(service: Service) -> str:
    """What the service has logged."""
    data_dir = service.settings.data_dir
    return (data_dir.parent / f"{data_dir.name}.log").read_text()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the service answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            httpx.get(f"{url}/healthz", timeout=PATIENCE).raise_for_status()
            return
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def holdings(service: Service) -> Holdings:
    """What the service holds now; sockets and the database's own files are not counted."""
    data_dir = service.settings.data_dir.resolve()
    process = psutil.Process(service.pid)
    return Holdings(
        rows=row_counts(service.settings),
        files={
            str(path.relative_to(data_dir)): path.stat().st_size
            for path in sorted(data_dir.rglob("*"))
            if path.is_file() and not path.name.startswith("ledger.sqlite3")
        },
        open_files=sorted(
            file.path
            for file in process.open_files()
            if "ledger.sqlite3" not in file.path and "/artifacts/" in file.path
        ),
        children=len(process.children(recursive=True)),
    )


def row_counts(settings: Settings) -> dict[str, int]:
    """Rows of every table."""
    engine = create_engine(settings.resolved_database_url)
    try:
        with engine.connect() as connection:
            names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
            counted = {name: connection.execute(text(f'SELECT count(*) FROM "{name}"')).scalar_one() for name in names}
    finally:
        engine.dispose()
    return {name: count for name, count in counted.items() if not name.startswith("sqlite_")}


def multipart(parts: Sequence[Part], *, end: bool = True) -> bytes:
    """A multipart body, written by hand so that it can be wrong."""
    lines = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in parts
    ]
    return b"".join(lines) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def post_parts(http: httpx.Client, parts: Sequence[Part], **options: Any) -> httpx.Response:
    """POST /jobs with these parts."""
    return post_multipart(http, multipart(parts, **options))


def post_multipart(http: httpx.Client, body: Any, *, boundary: str = BOUNDARY) -> httpx.Response:
    """POST /jobs with this multipart body; an iterator is sent in chunks."""
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return http.post("/jobs", content=body, headers=headers)


def spec_text(spec: Mapping[str, Any]) -> bytes:
    return json.dumps(spec).encode()


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem in a refusal, whose form is checked on the way."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    assert len(problem.get("errors", [])) <= 20
    return problem


def eventually(claim: Callable[[], bool], *, seconds: float = PATIENCE) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass(slots=True)
class Finished:
    """A job that went all the way, and the bytes of its files."""

    id: str
    files: dict[str, bytes] = field(default_factory=dict)
