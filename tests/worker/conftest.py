"""A ledger on SQLite, an artifact store, and a supervisor whose runner follows a script."""

import json
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.files.artifacts import ArtifactStore, open_artifacts
from jobs.ledger.leases import Claim
from jobs.models import Event, Job, JobSpec, TeacherRef
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import job_spec, teacher_ref
from tests.patience import PATIENCE, scaled, until
from worker.measurement import Measurement
from worker.supervision.supervisor import Supervisor

SCRIPT = Path(__file__).with_name("scripted_runner.py")


def script(act: str) -> tuple[str, ...]:
    """Return the command of a runner that plays `act`."""
    return (sys.executable, "-P", str(SCRIPT), act)


def gone(pid: int) -> bool:
    """Whether a process has ended. Where nobody reaps orphans, a zombie counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_with(word: str) -> list[int]:
    """Return the living processes that have a word in their command line, parents first."""
    found = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if word.encode() in _command_line(path / "cmdline").split(b"\0")
    ]
    return sorted((pid for pid in found if not gone(pid)), key=lambda pid: len(psutil.Process(pid).parents()))


def finished(thread: threading.Thread) -> None:
    """Wait until a thread has ended."""
    thread.join(PATIENCE)
    assert not thread.is_alive(), "waited in vain"


class Bench:
    """Everything that a supervisor works with, and short methods for what tests do with it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store: Store = open_store(settings)
        self.artifacts: ArtifactStore = open_artifacts(settings)
        self.draining = threading.Event()
        self.spawner = ThreadPoolExecutor(1)
        self.threads: list[threading.Thread] = []
        self.measurement: Measurement | None = None

    def submit(self, *, device: str | None = None, **asked: object) -> Job:
        upload = self.artifacts.receive([b"teacher"], 100)
        sha256, num_bytes = upload.commit()
        ref = TeacherRef(**{**teacher_ref().model_dump(), "id": sha256, "bytes": num_bytes})
        self.store.put_teacher(ref)
        spec = JobSpec.model_validate({**job_spec().model_dump(), "device": device, **asked})
        return self.store.create(str(uuid.uuid4()), spec, sha256)

    def shorten_leases(self, seconds: float) -> float:
        """Give later claims this lease, scaled for this machine. Return its length in seconds."""
        self.settings = self.settings.model_copy(update={"lease_seconds": scaled(seconds)})
        return self.settings.lease_seconds

    def claim(self, owner: str = "tester") -> Claim:
        claim = self.store.claim(owner, self.settings.lease_seconds, self.settings.worker_threads)
        assert claim is not None
        return claim

    def supervisor(self, act: str, **changes: object) -> Supervisor:
        settings = self.settings.model_copy(update=changes)
        return Supervisor(
            self.store,
            self.artifacts,
            settings,
            worker_id="tester",
            spawner=self.spawner,
            draining=self.draining,
            measurement=self.measurement,
            command=script(act),
        )

    def attempt(self, act: str, **changes: object) -> Job:
        """Claim the next job, take it through one attempt, and return it as it is after that."""
        asked_at, claim = time.monotonic(), self.claim()
        self.supervisor(act, **changes).supervise(claim, claimed_at=asked_at)
        return self.store.get(claim.job.id)

    def start(self, act: str, **changes: object) -> tuple[Job, threading.Thread]:
        """Do what `attempt` does in the background. Return the claimed job and the thread."""
        asked_at, claim = time.monotonic(), self.claim()
        supervise = self.supervisor(act, **changes).supervise
        thread = threading.Thread(target=supervise, args=(claim,), kwargs={"claimed_at": asked_at})
        thread.start()
        self.threads.append(thread)
        return claim.job, thread

    def runner_pid(self, job: Job) -> int:
        """Wait until a job's runner has made a step, and return its process id."""
        until(lambda: self.store.get(job.id).progress.step > 0)
        (task,) = (self.settings.data_dir / "work" / job.id).glob("*/workspace/task.json")
        return processes_with(str(task))[-1]  # the last one: those before it hold its sandbox

    def told(self, job: Job, kind: str) -> list[Event]:
        return [event for event in self.store.events(job.id, limit=1000) if event.kind == kind]

    def artifact(self, job: Job, name: str) -> bytes:
        (ref,) = (ref for ref in job.artifacts if ref.name == name)
        with self.artifacts.open(ref.sha256) as file:
            return file.read()

    def report(self, job: Job) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.artifact(job, "report.json"))
        return answer

    def workspaces(self) -> list[Path]:
        return list((self.settings.data_dir / "work").glob("*/*"))


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def bench(blank_sqlite: Path, tmp_path: Path) -> Iterator[Bench]:
    """The test profile: a lease that no test outlasts, frequent heartbeats, no back-off."""
    yield from _bench(blank_sqlite, tmp_path / "data")


@pytest.fixture
def roaming_bench(blank_sqlite: Path, tmp_path: Path, artifact_settings: dict[str, str]) -> Iterator[Bench]:
    """A bench with its files in a directory, and one with its files in a bucket."""
    yield from _bench(blank_sqlite, tmp_path / "data", **artifact_settings)


def _bench(blank: Path, data_dir: Path, **artifact_settings: str) -> Iterator[Bench]:
    data_dir.mkdir()
    shutil.copy(blank, data_dir / "ledger.sqlite3")
    settings = Settings(
        data_dir=data_dir,
        lease_seconds=2 * PATIENCE,
        heartbeat_seconds=0.25,
        sweep_seconds=0.2,
        backoff_seconds=0.0,
        stop_grace_seconds=PATIENCE,
        stall_seconds=PATIENCE,
        **artifact_settings,
    )
    made = Bench(settings)
    yield made
    made.draining.set()
    for thread in made.threads:
        finished(thread)
    made.spawner.shutdown()
    made.store.close()
