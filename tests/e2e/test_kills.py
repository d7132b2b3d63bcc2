"""Processes are killed during a job: the job still finishes, with the student of an uninterrupted run."""

import random
import time
from pathlib import Path

import pytest

from dfkd.wire.job import JobView
from tests.e2e.service import Service, gone, spec
from tests.patience import scaled, until


def identical(service: Service, job: JobView, reference: Path, directory: Path) -> bool:
    assert job.state == "succeeded", job.error
    return service.student(job, directory) == (reference / "student.onnx").read_bytes()


def test_kill_9_of_the_worker(service: Service, teacher: Path, reference: Path, tmp_path: Path) -> None:
    job = service.in_the_middle(service.client.submit(teacher, spec()))
    worker, runner = service.worker(), service.runner()
    worker.kill()
    until(lambda: gone(runner))
    assert service.client.job(job.id).state == "running"  # the runner died with its worker, not with its lease
    job = service.finish(job)
    assert identical(service, job, reference, tmp_path)
    assert job.attempt == 2
    assert service.worker().pid != worker.pid


@pytest.mark.slow
def test_kill_9_of_the_runner(service: Service, teacher: Path, reference: Path, tmp_path: Path) -> None:
    job = service.in_the_middle(service.client.submit(teacher, spec()))
    worker, runner = service.worker(), service.runner()
    runner.kill()
    until(lambda: any(event.kind == "released" for event in service.client.events(job.id)))
    job = service.finish(job)
    assert identical(service, job, reference, tmp_path)
    assert (job.attempt, service.worker().pid) == (2, worker.pid)


@pytest.mark.slow
def test_sigterm_of_the_worker_is_not_charged(service: Service, teacher: Path, reference: Path, tmp_path: Path) -> None:
    job = service.in_the_middle(service.client.submit(teacher, spec()))
    worker, runner = service.worker(), service.runner()
    worker.terminate()
    until(lambda: gone(worker) and gone(runner))
    released = [event for event in service.client.events(job.id) if event.kind == "released"]
    assert [event.data["reason"] for event in released] == ["drained"]
    job = service.finish(job)
    assert identical(service, job, reference, tmp_path)
    assert job.attempt == 1


@pytest.mark.slow
def test_a_paused_worker_loses_its_job_and_publishes_nothing(
    service: Service, teacher: Path, reference: Path, tmp_path: Path
) -> None:
    """A worker is stopped with SIGSTOP for longer than its lease. Its runner ends by itself when the lease ends."""
    job = service.in_the_middle(service.client.submit(teacher, spec()))
    worker, runner = service.worker(), service.runner()
    worker.suspend()
    try:
        until(lambda: gone(runner) or service.client.job(job.id).state == "queued")
        until(lambda: gone(runner), seconds=scaled(1.0))  # not later than the ledger gives its job up
        until(lambda: service.client.job(job.id).state == "queued")
    finally:
        worker.resume()
    job = service.finish(job)
    assert identical(service, job, reference, tmp_path)
    published = [event for event in service.client.events(job.id) if event.kind == "succeeded"]
    assert len(published) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_random_instants(service: Service, teacher: Path, reference: Path, tmp_path: Path, seed: int) -> None:
    instants = random.Random(seed)
    job = service.client.submit(teacher, spec())
    for _ in range(instants.randint(1, 3)):
        time.sleep(instants.uniform(0.0, 5.0))
        victim = service.find("-m", "worker.runner.main") if instants.random() < 0.5 else service.find("-m", "worker")
        if victim is not None:
            victim.kill()
    assert identical(service, service.finish(job), reference, tmp_path)
