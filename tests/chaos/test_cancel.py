"""Cancels and deletions at any moment: each job ends exactly once, and no deletion is partial."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.chaos.deployment import Deployment, deployed
from tests.chaos.fault import Run, fault
from tests.chaos.history import Call, Client
from tests.e2e.service import PROFILE, gone
from tests.patience import scaled

JOB_SECONDS = 3.5
LARGE = 800
CROWD, ROOM = 50, 10
STOP_SECONDS = float(PROFILE["DFKD_HEARTBEAT_SECONDS"]) + scaled(2.0)


@fault("F70")
def test_f70_a_cancel_at_a_random_instant(single: Deployment, run: Run) -> None:
    """Queued, loading, running, publishing, ended."""
    job_id = single.accepted()
    time.sleep(run.random.uniform(0.0, JOB_SECONDS))
    call = single.client.cancel(job_id)
    asked_at = time.monotonic()
    (end,) = single.finish(job_id)
    if call.outcome == "refused":
        assert (call.status, call.code, end.state) == (409, "invalid-transition", "succeeded")
    elif end.state == "cancelled":
        run.figure("cancelled after seconds", end.ended_at - asked_at)
        assert end.ended_at - asked_at < STOP_SECONDS
        assert single.client.download(job_id).status in {404, 409}
    assert end.state in {"cancelled", "succeeded"}
    assert single.client.cancel(job_id).status == (200 if end.state == "cancelled" else 409)
    single.audit(checkpoint_steps=None)


@fault("F71", share=0.5)
def test_f71_a_cancel_while_the_worker_hangs(single: Deployment, run: Run) -> None:
    job_id = single.accepted()
    single.until_step(job_id, run.random.randint(1, 20))
    runner, worker = single.runner_of(), psutil.Process(single.workers[0].pid)
    for process in (worker, runner):
        process.suspend()
    single.client.cancel(job_id)
    replacement = single.start_worker()
    try:
        (end,) = single.finish(job_id)
    finally:
        for process in (worker, runner):
            if not gone(process):
                process.resume()
    assert end.state == "cancelled"
    single.stop_worker(replacement)
    single.audit()


@pytest.fixture(scope="module")
def limited() -> Iterator[Deployment]:
    """An API without workers, on which ten jobs may be queued and one may run."""
    quotas = {"DFKD_QUOTA_QUEUED_JOBS": str(ROOM), "DFKD_QUOTA_RUNNING_JOBS": "1"}
    with deployed(workers=0, **quotas) as deployment:
        yield deployment


@fault("F73")
def test_f73_more_submissions_at_once_than_there_is_room_for(limited: Deployment, run: Run) -> None:
    """Exactly as many as there is room for; what is refused leaves nothing. Then three workers, one job at a time."""
    barrier = threading.Barrier(CROWD)

    def submit(_number: int) -> Call:
        client = Client(limited.url, limited.history, timeout=httpx.Timeout(60.0))
        barrier.wait()
        try:
            return limited.submit(steps=1, client=client)
        finally:
            client.close()

    before = limited.footprint()
    with ThreadPoolExecutor(CROWD) as pool:
        calls = list(pool.map(submit, range(CROWD)))
    refused = Counter((call.status, call.code) for call in calls if call.outcome != "ok")
    assert refused == {(429, "quota-exceeded"): CROWD - ROOM}
    assert limited.footprint().rows == before.rows + 2 * ROOM  # each with its first event
    accepted = [str(call.job_id) for call in calls if call.outcome == "ok"]
    for job_id in accepted[run.random.randint(2, 4) :]:
        limited.client.cancel(job_id)
    workers = [limited.start_worker() for _ in range(3)]
    limited.finish(*accepted)
    for worker in workers:
        limited.stop_worker(worker)
    run.figure("answered seconds", limited.history.slowest("submit"))
    limited.audit()
    for job_id in accepted:
        assert limited.client.delete(job_id).status == 200


@fault("F75")
def test_f75_a_deletion_during_a_download(single: Deployment, run: Run) -> None:
    """A reader gets its bytes or 404, never half; the job is gone in the end."""
    job_id = single.accepted(seed=LARGE, steps=1)
    single.succeed(job_id)
    client = Client(single.url, single.history)
    digest = single.evidence().jobs[job_id].files["student.safetensors"]
    reading = threading.Thread(target=client.download, args=(job_id, "student.safetensors"))
    reading.start()
    time.sleep(run.random.uniform(0.0, 0.15))
    assert single.client.delete(job_id).status == 200
    reading.join()
    client.close()
    call = single.history.of("download")[-1]
    run.figure("downloads that came whole", float(call.outcome == "ok"))
    assert call.sha256 == digest if call.outcome == "ok" else call.status in {404, 410}
    assert single.client.get(job_id).status == 404
    single.audit()
