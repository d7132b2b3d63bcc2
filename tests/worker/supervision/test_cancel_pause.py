"""Pauses, and jobs that continue others, with a real ledger and real child processes."""

import uuid

import pytest

from jobs.ledger.lineage import Origin
from jobs.models import JobState
from jobs.quota_limits import Quota
from tests.builders import job_spec
from tests.jobs.clockwork import end_day, use_up
from tests.patience import PATIENCE
from tests.worker.conftest import Bench, finished, gone


def test_a_running_job_is_paused_with_a_checkpoint_and_goes_on_from_it(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("slow", heartbeat_seconds=0.05)
    pid = bench.runner_pid(job)
    bench.store.request_pause(job.id)
    finished(thread)
    paused = bench.store.get(job.id)
    assert (paused.state, paused.attempt) == (JobState.PAUSED, 0)
    assert gone(pid)
    assert bench.workspaces() == []
    stopped_at = bench.told(job, "checkpoint")[-1].data["step"]
    bench.store.request_resume(job.id)
    done = bench.attempt("done")
    assert (done.state, done.attempt, bench.report(done)) == (JobState.SUCCEEDED, 1, {"began_at": stopped_at})
    assert bench.artifact(done, "student.onnx") == b"student of 20 steps"


def test_a_pause_that_is_taken_back_while_the_runner_stops_puts_the_job_back_in_the_queue(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.submit()
    paused = bench.store.paused

    def resumed_first(job_id: str, fence: int) -> bool:
        bench.store.request_resume(job_id)
        return paused(job_id, fence)

    monkeypatch.setattr(bench.store, "paused", resumed_first)
    _, thread = bench.start("endless")
    bench.runner_pid(job)
    bench.store.request_pause(job.id)
    finished(thread)
    resumed = bench.store.get(job.id)
    assert (resumed.state, resumed.attempt) == (JobState.QUEUED, 0)
    assert bench.claim().checkpoint_sha256 is not None


def test_a_runner_that_is_done_while_it_is_asked_to_pause_is_published(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("slow", heartbeat_seconds=PATIENCE)
    bench.runner_pid(job)
    bench.store.request_pause(job.id)  # the next heartbeat comes too late
    finished(thread)
    assert bench.store.get(job.id).state is JobState.SUCCEEDED


def test_a_deaf_runner_is_paused_without_a_checkpoint(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("deaf", stop_grace_seconds=0.5)
    pid = bench.runner_pid(job)
    bench.store.request_pause(job.id)
    finished(thread)
    assert bench.store.get(job.id).state is JobState.PAUSED
    assert gone(pid)


def test_a_job_that_continues_another_begins_where_that_ended(bench: Bench) -> None:
    bench.submit()
    old = bench.attempt("done")
    new = bench.store.create(str(uuid.uuid4()), job_spec(), old.teacher.id, origin=Origin(old.id, continues=True))
    job = bench.attempt("tell_task")
    task = bench.report(job)
    assert (job.id, task["began_at"]) == (new.id, "20")
    assert task["continued_budget"] == {"effort": "standard", "steps": 6000, "max_seconds": None}


def test_a_job_of_a_tenant_that_has_had_its_day_is_given_back_and_goes_on_from_its_checkpoint(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("slow", heartbeat_seconds=0.05)
    bench.runner_pid(job)
    bench.store.tenants.limit("default", {Quota.DEVICE_SECONDS: 86400})
    use_up(bench.store, "default", 86400.0)
    finished(thread)
    waiting = bench.store.get(job.id)
    assert (waiting.state, waiting.attempt) == (JobState.QUEUED, 0)
    assert bench.told(job, "released")[-1].data["reason"] == "over-quota"
    assert bench.store.claim("somebody", 60, 1) is None
    stopped_at = bench.told(job, "checkpoint")[-1].data["step"]
    end_day(bench.store)
    done = bench.attempt("done")
    assert (done.state, bench.report(done)) == (JobState.SUCCEEDED, {"began_at": stopped_at})
