"""What the auditor looks at: the ledger by SQL on a connection of its own, the disk, Redis, /proc."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy import Connection, text

from tests.chaos.history import History
from tests.servers import all_tenants_engine


@dataclass(frozen=True, slots=True)
class Event:
    """A line of a job's history."""

    seq: int
    kind: str
    fence: int
    at: float  # seconds since the epoch, by the database's clock
    data: Mapping[str, Any]


@dataclass(slots=True)
class Row:
    """A job as the ledger has it."""

    id: str
    state: str
    fence: int
    attempt: int
    error: str | None
    labels: Mapping[str, str]
    events: list[Event]
    files: Mapping[str, str]  # name → sha256
    checkpoints: list[str]


@dataclass(slots=True)
class Evidence:
    """Everything at one moment, when the faults have stopped and the jobs have ended."""

    history: History
    jobs: dict[str, Row]
    teachers: set[str]
    blobs: dict[str, str]  # name of a file in the store → sha256 of its bytes
    temporary: list[str] = field(default_factory=list)
    workspaces: list[str] = field(default_factory=list)
    runners: list[str] = field(default_factory=list)
    redis_keys: set[str] = field(default_factory=set)
    bells_left: int = 0
    students: Mapping[str, str] = field(default_factory=dict)  # recipe → sha256 of the reference student
    takeover_seconds: float | None = None  # limit; None: not judged
    checkpoint_steps: int | None = None  # limit; None: not judged
    get_seconds: float | None = None  # limit; None: not judged
    quotas: Mapping[str, int] = field(default_factory=dict)  # state → so many jobs of the one tenant at most


def read_ledger(url: str) -> tuple[dict[str, Row], set[str]]:
    """All jobs by id, and the ids of all teachers, in one transaction."""
    engine = all_tenants_engine(url)
    try:
        with engine.connect() as connection:
            jobs = {row.id: row for row in _jobs(connection)}
            return jobs, {str(row.id) for row in connection.execute(text("SELECT id FROM teachers"))}
    finally:
        engine.dispose()


def _jobs(connection: Connection) -> list[Row]:
    events: dict[int, list[Event]] = {}
    for line in connection.execute(text("SELECT * FROM events ORDER BY job_number, seq")):
        event = Event(line.seq, line.kind, line.fence, _seconds(line.at), json.loads(line.data))
        events.setdefault(line.job_number, []).append(event)
    labels: dict[int, dict[str, str]] = {}
    for label in connection.execute(text("SELECT * FROM labels")):
        labels.setdefault(label.job_number, {})[label.key] = label.value
    files: dict[int, dict[str, str]] = {}
    for file in connection.execute(text("SELECT * FROM artifacts")):
        files.setdefault(file.job_number, {})[file.name] = file.sha256
    return [
        Row(
            id=row.id,
            state=row.state,
            fence=row.fence,
            attempt=row.attempt,
            error=json.loads(row.error)["code"] if row.error else None,
            labels=labels.get(row.number, {}),
            events=events.get(row.number, []),
            files=files.get(row.number, {}),
            checkpoints=[sha for sha in (row.checkpoint_sha256, row.previous_checkpoint_sha256) if sha],
        )
        for row in connection.execute(text("SELECT * FROM jobs ORDER BY number"))
    ]


def _seconds(moment: Any) -> float:
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return float(found.astimezone(UTC).timestamp())


def read_blobs(data_dir: Path) -> dict[str, str]:
    """Every file of the store, and what its bytes hash to."""
    files = (data_dir / "artifacts" / "blobs").glob("??/*")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_temporary(data_dir: Path) -> list[str]:
    """Half uploads."""
    directory = data_dir / "artifacts" / "temporary"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def read_workspaces(data_dir: Path) -> list[str]:
    """Desks of attempts, JOB/FENCE."""
    return sorted(str(path.relative_to(data_dir / "work")) for path in (data_dir / "work").glob("*/*"))


def find_runners(data_dir: Path) -> list[str]:
    """Living processes whose command line names a task below this directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if names_a_task(words, data_dir) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(f"{process.pid}: {' '.join(words)}")
    return found


def names_a_task(words: Sequence[str], data_dir: Path) -> bool:
    """Whether a command line is that of a runner of this deployment."""
    return any(data_dir / "work" in Path(word).parents for word in words)


def read_redis(socket: Path | None) -> tuple[set[str], int]:
    """Names of all keys, and how many bells nobody has taken."""
    if socket is None:
        return set(), 0
    with redis.Redis(unix_socket_path=str(socket)) as client:
        try:
            keys = {key.decode(errors="replace") for key in client.scan_iter()}  # type: ignore[union-attr]
            return keys, int(client.llen("dfkd"))  # type: ignore[arg-type]
        except redis.ConnectionError:
            return set(), 0
