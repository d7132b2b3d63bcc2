"""API and workers as processes that can be killed one by one, and the auditor's verdict at the end."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psutil

from jobs.files.artifacts import open_artifacts
from jobs.garbage_collector import collect_garbage
from jobs.settings import Settings
from jobs.store import open_store
from tests.chaos.auditor import Footprint, Violation, audit
from tests.chaos.evidence import (
    Evidence,
    find_runners,
    names_a_task,
    read_blobs,
    read_ledger,
    read_redis,
    read_temporary,
    read_workspaces,
)
from tests.chaos.history import TERMINAL, Call, Client, History
from tests.chaos.science import state_after
from tests.e2e.service import PROFILE, gone, spec
from tests.e2e.teacher import write_teacher
from tests.known_speed import keep_speed
from tests.patience import PATIENCE, scaled, until
from tests.sandboxes import is_sandbox_process
from tests.servers import short_directory
from worker.supervision.context import remove_stale_attempts

LEASE_SECONDS, SWEEP_SECONDS = scaled(3.0), 0.5
TEST_PROFILE = {
    **PROFILE,
    "DFKD_LEASE_SECONDS": str(LEASE_SECONDS),
    "DFKD_SWEEP_SECONDS": str(SWEEP_SECONDS),
    "DFKD_REQUEST_LEASE_SECONDS": str(scaled(1.0)),
    "DFKD_UPLOAD_IDLE_SECONDS": str(scaled(5.0)),
    "OMP_NUM_THREADS": "1",
}
TAKEOVER_SECONDS = LEASE_SECONDS + SWEEP_SECONDS + scaled(4.5)  # the plan says 1.5: a poll; the rest as below
GET_SECONDS = scaled(1.0)  # the plan says 0.25; the rest is for machines that do other work besides
STEPS = 40


class Deployment:
    """A data directory, the API on a port that stays ours while it is down, and workers."""

    def __init__(
        self, data_dir: Path, *, redis_socket: Path | None = None, ledger_url: str | None = None, **environment: str
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.history = History()
        self.environment = {**os.environ, **TEST_PROFILE, "DFKD_DATA_DIR": str(self.data_dir), **environment}
        if redis_socket is not None:
            self.environment["DFKD_BROKER_URL"] = f"redis+socket://{redis_socket}?virtual_host=0"
        if ledger_url is not None:
            self.environment.setdefault("DFKD_DATABASE_URL", ledger_url)
        self.ledger_url = ledger_url or f"sqlite:///{self.data_dir / 'ledger.sqlite3'}"
        self.redis_socket = redis_socket
        self.api: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.recipes: dict[str, str] = {}
        told = {state: environment.get(f"DFKD_QUOTA_{state.upper()}_JOBS") for state in ("queued", "running")}
        self.quotas = {state: int(limit) for state, limit in told.items() if limit is not None}
        self.teacher_id = ""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.client = Client(self.url, self.history)
        keep_speed(self.data_dir)
        self.log_path = self.data_dir.parent / f"{self.data_dir.name}.log"

    # Processes

    def start_api(self, *, wrapper: Sequence[str] = (), **environment: str) -> None:
        """Until it answers; the first start uploads the teacher."""
        descriptor = self._listener.fileno()
        command = [*wrapper, sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app"]
        command += ["--http", "service.middleware.h11_protocol:Protocol"]
        command += ["--fd", str(descriptor), "--log-level", "warning", "--timeout-graceful-shutdown", "5"]
        with self.log_path.open("ab") as log:
            self.api = subprocess.Popen(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, pass_fds=[descriptor]
            )
        until(self.healthy)
        if not self.teacher_id:
            self._upload_teacher()

    def healthy(self) -> bool:
        """Whether the API answers."""
        try:
            return httpx.get(f"{self.url}/healthz", timeout=PATIENCE).status_code == 200
        except httpx.TransportError:
            return False

    def start_worker(self, *, real: bool = False, wrapper: Sequence[str] = (), **environment: str) -> psutil.Process:
        """One more worker; `real`: with the real science in its runners."""
        module = "worker" if real else "tests.chaos.worker"
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", module],
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(process)
        return psutil.Process(process.pid)

    def kill_api(self) -> None:
        """kill -9."""
        assert self.api is not None
        self.api.kill()
        self.api.wait(10)

    def stop_traced_api(self) -> None:
        """One that runs under a tracer, which passes no signal on."""
        assert self.api is not None
        for child in psutil.Process(self.api.pid).children():
            child.terminate()
        self.api.wait(PATIENCE)

    def kill_worker(self, process: psutil.Process) -> None:
        """kill -9 of its whole process group."""
        os.killpg(process.pid, signal.SIGKILL)
        self._reap(process)

    def stop_worker(self, process: psutil.Process, *, seconds: float = PATIENCE) -> int:
        """SIGTERM → exit status."""
        process.terminate()
        return self._reap(process, seconds=seconds)

    def forget_worker(self, process: psutil.Process) -> None:
        """One that a test has killed itself."""
        self._reap(process)

    def drop_worker(self, worker: "subprocess.Popen[bytes]") -> None:
        """Have a worker under a tracer end, whatever it does, and what it traced."""
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(PATIENCE)
        self.workers.remove(worker)

    def _reap(self, process: psutil.Process, *, seconds: float = PATIENCE) -> int:
        (found,) = (worker for worker in self.workers if worker.pid == process.pid)
        status = found.wait(seconds)
        self.workers.remove(found)
        return status

    def stop(self) -> None:
        """Everything."""
        processes = [*self.workers, *([self.api] if self.api is not None else [])]
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in processes:
            try:
                process.wait(scaled(20.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)
        self.client.close()
        self._listener.close()

    def runner_of(self, worker: psutil.Process | None = None, *, seconds: float = PATIENCE) -> psutil.Process:
        """The runner that some worker, or this one, has now."""

        def find() -> psutil.Process | None:
            parents = [worker] if worker is not None else [psutil.Process(found.pid) for found in self.workers]
            for parent in parents:
                for child in _children(parent):
                    words = _words(child)
                    if names_a_task(words, self.data_dir) and not is_sandbox_process(words) and not gone(child):
                        return child
            return None

        found = until(find, seconds=seconds)
        assert isinstance(found, psutil.Process)
        return found

    # Jobs

    def _upload_teacher(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            content = write_teacher(Path(directory) / "teacher.onnx").read_bytes()
        call = self.client.upload(content)
        assert call.sha256 is not None, call
        self.teacher_id = call.sha256

    def submit(
        self, *, seed: int = 0, steps: int = STEPS, client: Client | None = None, real: str | None = None
    ) -> Call:
        """A job. Its recipe says which student it has to deliver; `real`: the digest for the real science."""
        recipe = f"{'real' if real else 'chain'}-{seed}-{steps}"
        self.recipes[recipe] = real or sha256(state_after(steps, seed).encode()).hexdigest()
        body = spec(steps=steps) if real else spec(steps=steps, seed=seed)
        return (client or self.client).submit(self.teacher_id, body, recipe=recipe)

    def accepted(self, **options: Any) -> str:
        """Submit → the id of the job; it must be taken."""
        call = self.submit(**options)
        assert call.job_id is not None, call
        return call.job_id

    def until_job(self, job_id: str, condition: Callable[[Call], bool], *, seconds: float = PATIENCE) -> Call:
        """Read a job until it is so."""

        def ask() -> Call | None:
            call = self.client.get(job_id)
            return call if call.outcome == "ok" and condition(call) else None

        found = until(ask, seconds=seconds)
        assert isinstance(found, Call)
        return found

    def until_step(self, job_id: str, step: int) -> Call:
        """Until a job is that far."""
        return self.until_job(job_id, lambda call: call.step >= step or call.state in TERMINAL)

    def finish(self, *job_ids: str, seconds: float = PATIENCE) -> list[Call]:
        """The jobs when they have ended."""
        return [self.until_job(job_id, lambda call: call.state in TERMINAL, seconds=seconds) for job_id in job_ids]

    def succeed(self, *job_ids: str, seconds: float = PATIENCE) -> None:
        """The jobs have to succeed; their students are downloaded."""
        states = {call.job_id: call.state for call in self.finish(*job_ids, seconds=seconds)}
        assert set(states.values()) == {"succeeded"}, states
        for job_id in job_ids:
            assert self.client.download(job_id).outcome == "ok"

    # The auditor

    @property
    def settings(self) -> Settings:
        """What the processes have been told, as far as store and janitor need it."""
        return Settings(data_dir=self.data_dir, database_url=self.ledger_url)

    def evidence(self) -> Evidence:
        """What there is now, after one pass of the janitor."""
        jobs, teachers = read_ledger(self.ledger_url)
        keys, bells = read_redis(self.redis_socket)
        return Evidence(
            history=self.history,
            jobs=jobs,
            teachers=teachers,
            blobs=read_blobs(self.data_dir),
            temporary=read_temporary(self.data_dir),
            workspaces=read_workspaces(self.data_dir),
            runners=find_runners(self.data_dir),
            redis_keys=keys,
            bells_left=bells,
            students=self.recipes,
            takeover_seconds=TAKEOVER_SECONDS,
            checkpoint_steps=5,
            get_seconds=GET_SECONDS,
            quotas=self.quotas,
        )

    def sweep_up(self) -> None:
        """One pass of the janitor and of a worker's tidying, with no day of waiting."""
        store = open_store(self.settings)
        try:
            artifacts = open_artifacts(self.settings)
            for _ in range(2):  # the first finds what nobody needs, the second deletes it
                collect_garbage(store, artifacts, retention_seconds=86400.0, quarantine_seconds=0.0)
            remove_stale_attempts(self.settings, store)
        finally:
            store.close()

    def audit(self, **limits: Any) -> Evidence:
        """Wait for the end of all jobs, then have the auditor look; there must be nothing to say."""
        self.client.settle()
        until(lambda: not self.live_jobs())
        if self.redis_socket is not None and self.workers:
            with suppress(AssertionError):
                until(lambda: read_redis(self.redis_socket)[1] == 0, seconds=scaled(10.0))
        with suppress(AssertionError):
            until(lambda: not find_runners(self.data_dir), seconds=scaled(5.0))
        self.sweep_up()
        evidence = self.evidence()
        for name, value in limits.items():
            setattr(evidence, name, value)
        found = audit(evidence)
        assert found == [], f"{found}\n{self.tail()}"
        return evidence

    def live_jobs(self) -> list[str]:
        """Jobs that have not ended, by the ledger."""
        return [job_id for job_id, row in read_ledger(self.ledger_url)[0].items() if row.state not in TERMINAL]

    def violations(self) -> list[Violation]:
        """What the auditor has to say now."""
        return audit(self.evidence())

    def footprint(self) -> Footprint:
        """What the service holds now."""
        jobs, teachers = read_ledger(self.ledger_url)
        assert self.api is not None
        api = psutil.Process(self.api.pid)
        return Footprint(
            rows=len(jobs) + len(teachers) + sum(len(row.events) for row in jobs.values()),
            blobs=frozenset(read_blobs(self.data_dir)),
            temporary=tuple(read_temporary(self.data_dir)),
            redis_keys=frozenset(read_redis(self.redis_socket)[0]),
            descriptors=sum("/artifacts/" in file.path for file in api.open_files()),
            children=len(api.children(recursive=True)),
        )

    def tail(self) -> str:
        """The last lines of all logs."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-60:])

    def events(self, job_id: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Kinds and data of a job's history, by the ledger."""
        return [(event.kind, event.data) for event in read_ledger(self.ledger_url)[0][job_id].events]


@contextmanager
def deployed(
    data_dir: Path | None = None,
    *,
    workers: int = 1,
    real: bool = False,
    redis_socket: Path | None = None,
    ledger_url: str | None = None,
    **environment: str,
) -> Iterator[Deployment]:
    """API and workers, running."""
    with ExitStack() as stack:
        place = data_dir or stack.enter_context(short_directory()) / "data"
        deployment = Deployment(place, redis_socket=redis_socket, ledger_url=ledger_url, **environment)
        stack.callback(deployment.stop)
        deployment.start_api()
        for _ in range(workers):
            deployment.start_worker(real=real)
        yield deployment


def seconds_until(condition: Callable[[], Any], *, seconds: float = PATIENCE) -> float:
    """How long it takes until it is so."""
    began_at = time.monotonic()
    until(condition, seconds=seconds)
    return time.monotonic() - began_at


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
