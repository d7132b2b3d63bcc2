"""Cancels and deletions at any moment: one end, exactly, and nothing half."""

import threading
import time

import psutil

from tests.chaos.deployment import Deployment
from tests.chaos.fault import Run, fault
from tests.chaos.history import Client
from tests.e2e.service import PROFILE, gone

JOB_SECONDS = 3.5
LARGE = 800
STOP_SECONDS = float(PROFILE["DFKD_HEARTBEAT_SECONDS"]) + 2.0


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
