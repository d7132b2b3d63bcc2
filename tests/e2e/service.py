"""A real `dfkd up`, or API and worker as processes of their own, with the test profile of leases."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from dfkd import Client
from dfkd.wire.job import JobView
from tests.e2e.teacher import NUM_CLASSES
from tests.known_speed import keep_speed
from tests.patience import PATIENCE, scaled, until
from tests.sandboxes import is_sandbox_process

PROFILE = {
    "DFKD_HEARTBEAT_SECONDS": "0.75",
    "DFKD_SWEEP_SECONDS": "0.5",
    "DFKD_BACKOFF_SECONDS": "0.2",
    "DFKD_CHECKPOINT_SECONDS": "0.5",
    "DFKD_WORKER_THREADS": "1",
    "DFKD_MAX_CRASHES": "50",
    "DFKD_MAX_ATTEMPTS": "50",
    "DFKD_STOP_GRACE_SECONDS": "60",
    "DFKD_INSPECTION_TIMEOUT_SECONDS": str(PATIENCE),
}
LEASE_SECONDS = 4.0  # on an idle machine
JOB_SECONDS = 2 * PATIENCE


def profile() -> dict[str, str]:
    """The settings of the processes under test; their leases suit the speed of this machine."""
    return {"DFKD_LEASE_SECONDS": str(scaled(LEASE_SECONDS)), **PROFILE}


class Followed(NamedTuple):
    """A job, and the fractions of progress that a client saw."""

    job: JobView
    fractions: list[float]


def spec(*, steps: int = 200, **distillation: object) -> dict[str, Any]:
    """The spec of a job that takes seconds: every part takes part, and each is as small as possible."""
    training = {"batch_size": 16, "updates_per_round": 5, "fresh_batches": 1, "replays_per_round": 16}
    steadiness = {"probe_size": 64, "audit_size": 64, "evaluations": 8}
    small = {
        "memory": "reservoir",
        "memory_options": {"capacity": 128},
        "method_options": {"width": 4, "latent_dim": 8, "batch_size": 16, "warmup_rounds": 4},
        "training": training,
        "procedural": {"images_per_round": 64, "capacity": 200},
        "steadiness": steadiness,
        "seed": 7,
        "compute": {"precision": "fp32"},  # whichever worker runs it, the bytes are the same
        "budget": {"steps": steps},
    }
    return {
        "teacher": {"num_classes": NUM_CLASSES},
        "student": {"architecture": "resnet8", "width": 0.25},
        "distillation": {**small, **distillation},
    }


def gone(process: psutil.Process) -> bool:
    """Whether the process has ended. Where nobody reaps orphans, a zombie counts as ended."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


class Service:
    """The processes that a test has started, and a client of their API."""

    def __init__(self, roots: Sequence["subprocess.Popen[bytes]"], url: str, data_dir: Path) -> None:
        self.roots = list(roots)
        self.url = url
        self.data_dir = data_dir
        self.client = Client(url)

    def processes(self) -> list[psutil.Process]:
        """Every living process that was started, and its descendants."""
        found = [psutil.Process(root.pid) for root in self.roots if root.poll() is None]
        found += [child for process in list(found) for child in process.children(recursive=True)]
        return [process for process in found if not gone(process)]

    def find(self, *words: str) -> psutil.Process | None:
        """Find a process with these words in its command line."""
        for process in self.processes():
            with suppress(psutil.Error):
                found = process.cmdline()
                line = " ".join([*found, ""])
                if (
                    " ".join([*words, ""]) in line
                    and "dfkd_core.sandbox.process_tuning" not in line
                    and not is_sandbox_process(found)
                ):
                    return process
        return None

    def redis(self) -> psutil.Process | None:
        """Find the private Redis, which replaces its command line by the name of its socket."""
        for process in self.processes():
            with suppress(psutil.Error):
                if process.name() in {"redis-server", "valkey-server"}:
                    return process
        return None

    def worker(self) -> psutil.Process:
        process = until(lambda: self.find("-m", "worker"))
        assert process is not None
        return process

    def runner(self) -> psutil.Process:
        process = until(lambda: self.find("-m", "worker.runner.main"))
        assert process is not None
        return process

    def in_the_middle(self, job: JobView) -> JobView:
        """Wait until a job distils and has a checkpoint to resume from."""

        def ready() -> JobView | None:
            now = self.client.job(job.id)
            assert not now.terminal, now
            kept = any(event.kind == "checkpoint" for event in self.client.events(job.id))
            return now if kept and now.progress.step > 0 else None

        found = until(ready, seconds=JOB_SECONDS)
        assert isinstance(found, JobView)
        return found

    def cancel(self, job: JobView) -> None:
        """Cancel a job that the test needs no longer."""
        self.client.cancel(job.id)
        assert self.finish(job).state == "cancelled"

    def finish(self, job: JobView) -> JobView:
        """Wait until the job is in a terminal state, and return it."""
        return self.client.wait(job.id, timeout_seconds=JOB_SECONDS)

    def succeed(self, job: JobView) -> JobView:
        """Wait until the job has succeeded, and return it."""
        ended = self.finish(job)
        assert ended.state == "succeeded", ended.error
        return ended

    def student(self, job: JobView, directory: Path) -> bytes:
        """Return the bytes of the job's student."""
        self.client.download(job.id, directory)
        return (directory / "student.onnx").read_bytes()


@contextmanager
def running_up(data_dir: Path, **environment: str) -> Iterator[Service]:
    """Run `dfkd up` on a free port."""
    keep_speed(data_dir)
    command = [str(Path(sys.executable).with_name("dfkd")), "up", "--port", "0", "--data-dir", str(data_dir)]
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **profile(), **environment}, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        assert line.startswith("dfkd is ready at "), line
        service = Service([process], line.split()[4], data_dir)
        with service.client:
            yield service
    finally:
        stop(process)
        process.stdout.close()


@contextmanager
def running_apart(data_dir: Path, *, worker_dir: Path | None = None, **environment: str) -> Iterator[Service]:
    """API and worker as two processes, as on two machines, without a broker unless one is named.

    They share the data directory unless the worker has its own.
    """
    settings = {**os.environ, **profile(), "DFKD_DATA_DIR": str(data_dir), **environment}
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log, socket.create_server(("127.0.0.1", 0)) as port:
        api = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--fd", str(port.fileno())]
        api += ["--http", "service.middleware.h11_protocol:Protocol"]
        processes = [
            subprocess.Popen(api, env=settings, stdout=log, stderr=log, pass_fds=[port.fileno()]),
            start_worker(worker_dir or data_dir, **environment),
        ]
        url = f"http://127.0.0.1:{port.getsockname()[1]}"  # taken all the time: nobody else can get it before the API
    service = Service(processes, url, data_dir)
    try:
        with service.client:
            service.client.jobs()  # waits for the API
            yield service
    finally:
        for process in reversed(service.roots):
            stop(process)


def start_worker(data_dir: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """Start one more worker, as on another machine."""
    keep_speed(data_dir)
    settings = {**os.environ, **profile(), "DFKD_DATA_DIR": str(data_dir), **environment}
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "worker"], env=settings, stdout=log, stderr=log)


def stop(process: "subprocess.Popen[bytes]", *, seconds: float = PATIENCE) -> int:
    """Send SIGTERM and wait for the end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait(seconds)
