"""Slots, maintenance and drain of one worker process, with runners that follow a script."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.models import JobState
from tests.patience import PATIENCE, until
from tests.worker.conftest import Bench, script
from worker.slots import WorkerPool


@contextmanager
def open_pool(bench: Bench, act: str, *, slots: int = 1) -> Iterator[WorkerPool]:
    settings = bench.settings.model_copy(update={"worker_slots": slots})
    pool = WorkerPool(settings, bench.store, bench.artifacts, command=script(act))
    pool.start()
    yield pool
    pool.drain()
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"slot-0", "slot-1", "maintenance"})


def test_every_slot_takes_one_job_and_the_rest_wait(bench: Bench) -> None:
    jobs = [bench.submit() for _ in range(3)]
    with open_pool(bench, "endless", slots=2):
        until(lambda: bench.store.statistics(worker_seconds=60.0).jobs[JobState.RUNNING] == 2)
        time.sleep(3 * bench.settings.sweep_seconds)
        assert [bench.store.get(job.id).state for job in jobs] == ["running", "running", "queued"]
    assert bench.store.statistics(worker_seconds=60.0).jobs[JobState.QUEUED] == 3
    assert [bench.store.get(job.id).attempt for job in jobs] == [0, 0, 0]


def test_jobs_are_found_without_a_bell_and_worked_off(bench: Bench) -> None:
    with open_pool(bench, "done", slots=2) as pool:
        jobs = [bench.submit() for _ in range(3)]
        until(lambda: all(bench.store.get(job.id).state is JobState.SUCCEEDED for job in jobs))
        (worker,) = bench.store.live_workers(PATIENCE)
        assert (worker.id, worker.slots, worker.device) == (pool.worker_id, 2, "cpu")
    assert bench.store.live_workers(PATIENCE) == []


def test_a_look_claims_at_once(bench: Bench) -> None:
    slow = bench.settings.model_copy(update={"sweep_seconds": 600.0})
    pool = WorkerPool(slow, bench.store, bench.artifacts, notify=lambda *_bell: True, command=script("endless"))
    pool.start()
    until(lambda: bench.store.live_workers(PATIENCE))
    time.sleep(0.3)  # the wake-ups of the first round are over
    job = bench.submit()
    pool.wake()
    until(lambda: bench.store.get(job.id).state is JobState.RUNNING)
    pool.drain()


def test_the_rounds_take_back_what_a_dead_worker_held(bench: Bench) -> None:
    job = bench.submit()
    assert bench.store.claim("dead", 0.1, 1) is not None
    with open_pool(bench, "done"):
        until(lambda: bench.store.get(job.id).state is JobState.SUCCEEDED)
    assert [event.data["reason"] for event in bench.told(job, "released")] == ["lease-expired"]
