"""The supervisor with a real ledger and real child processes: every way in which a runner can end."""

import os
import signal
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from jobs.files.artifacts import open_artifacts
from jobs.models import JobState
from tests.builders import digest
from tests.patience import PATIENCE, scaled, until
from tests.stored import content, overwrite
from tests.worker.conftest import Bench, finished, gone, processes_with
from worker.supervision.attempt import RunnerExit
from worker.supervision.context import AttemptContext, remove_stale_attempts
from worker.supervision.heartbeat import Heartbeat
from worker.supervision.outcome import OutcomeHandler


def test_a_job_that_is_done_is_published(roaming_bench: Bench) -> None:
    roaming_bench.submit()
    job = roaming_bench.attempt("done")
    assert job.state is JobState.SUCCEEDED
    assert {ref.name for ref in job.artifacts} == {"student.onnx", "student.safetensors", "report.json"}
    assert roaming_bench.artifact(job, "student.onnx") == b"student of 20 steps"
    assert (job.best and job.best.step, job.best and job.best.agreement) == (7, 0.75)
    assert [warning.code for warning in job.warnings] == ["slow-day"]
    assert [event.data["step"] for event in roaming_bench.told(job, "checkpoint")] == [5, 10, 15, 20]
    assert roaming_bench.workspaces() == []


def test_best_and_progress_show_the_same_newest_score_of_the_published_student(bench: Bench) -> None:
    bench.submit()
    running, thread = bench.start("rescored")
    scores = set()

    def several() -> bool:
        job = bench.store.get(running.id)
        score = (job.best and job.best.step, job.best and job.best.agreement)
        assert score == (job.best and 2, job.progress.agreement)
        scores.add(score)
        return len(scores) >= 3  # none yet, and at least two scores on the way

    until(several)
    (attempt,) = bench.workspaces()
    (attempt / "workspace" / "enough").touch()
    finished(thread)
    job = bench.store.get(running.id)
    assert job.state is JobState.SUCCEEDED
    assert job.best is not None
    assert (job.best.step, job.best.agreement) == (2, pytest.approx(0.7))
    assert job.progress.agreement == job.best.agreement


def test_the_last_two_checkpoints_are_kept_and_no_more(roaming_bench: Bench) -> None:
    roaming_bench.submit()
    job = roaming_bench.attempt("done")
    kept = set(roaming_bench.artifacts.digests()) - {job.teacher.id} - {ref.sha256 for ref in job.artifacts}
    assert sorted(content(roaming_bench.artifacts, sha256) for sha256 in kept) == [b"15", b"20"]


def test_a_crashed_runner_resumes_from_its_checkpoint(roaming_bench: Bench) -> None:
    roaming_bench.submit()
    crashed = roaming_bench.attempt("crash")
    assert (crashed.state, crashed.attempt) == (JobState.QUEUED, 1)
    assert "SIGSEGV" in roaming_bench.told(crashed, "released")[0].data["reason"]
    job = roaming_bench.attempt("crash")
    assert (job.state, job.attempt, roaming_bench.report(job)) == (JobState.SUCCEEDED, 2, {"began_at": 10})
    assert roaming_bench.artifact(job, "student.onnx") == b"student of 20 steps"


def test_a_damaged_checkpoint_gives_way_to_the_one_before(roaming_bench: Bench) -> None:
    roaming_bench.submit()
    crashed = roaming_bench.attempt("crash")
    overwrite(roaming_bench.artifacts, digest("10"), b"66")
    assert roaming_bench.report(roaming_bench.attempt("crash")) == {"began_at": 5}
    assert crashed.attempt == 1


def test_a_runner_that_always_dies_is_poison(bench: Bench) -> None:
    bench.submit()
    states = [bench.attempt("poison").state for _ in range(3)]
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    job = bench.store.list(1).jobs[0]
    assert job.error
    assert job.error.code == "poison"
    assert "exit status 3" in job.error.detail


def test_an_error_of_ours_fails_the_job_at_once_with_its_code(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("diverge")
    assert job.error is not None
    assert (job.state, job.error.code, job.error.stage) == (JobState.FAILED, "distillation-diverged", "distill")
    assert (job.error.detail, job.error.hint) == ("the loss is NaN at step 3", "lower the learning rate")


def test_an_unforeseen_error_fails_the_job_and_gives_no_path_away(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("unforeseen")
    assert job.error
    assert job.error.code == "internal"
    assert "ValueError" in job.error.detail
    assert str(bench.settings.data_dir) not in job.error.model_dump_json()


def test_out_of_memory_gets_one_more_try(bench: Bench) -> None:
    bench.submit()
    assert bench.attempt("exhausted").state is JobState.QUEUED
    job = bench.attempt("exhausted")
    assert (job.attempt, job.error and job.error.code) == (2, "out-of-memory")


def test_a_full_disk_is_not_charged_to_the_job(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("full_disk")
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert bench.told(job, "released")[0].data["reason"] == "storage-full"


def test_a_running_job_is_cancelled_within_a_heartbeat(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("endless")
    pid = bench.runner_pid(job)
    bench.store.request_cancel(job.id)
    finished(thread)  # long before the grace, the stall limit or the lease would have ended the runner
    assert bench.store.get(job.id).state is JobState.CANCELLED
    assert gone(pid)
    assert bench.workspaces() == []


def test_a_deaf_runner_is_killed_after_the_grace(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("deaf", stop_grace_seconds=0.5)
    pid = bench.runner_pid(job)
    bench.store.request_cancel(job.id)
    finished(thread)
    assert bench.store.get(job.id).state is JobState.CANCELLED
    assert gone(pid)


def test_a_job_is_drained_before_its_first_step_too(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("loading")
    until(lambda: bench.store.get(job.id).progress.stage == "load")
    bench.draining.set()
    finished(thread)
    drained = bench.store.get(job.id)
    assert (drained.state, drained.attempt) == (JobState.QUEUED, 0)


def test_a_drained_job_goes_back_uncharged_with_its_checkpoint(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("endless")
    bench.runner_pid(job)
    bench.draining.set()
    finished(thread)
    drained = bench.store.get(job.id)
    assert (drained.state, drained.attempt) == (JobState.QUEUED, 0)
    assert len(bench.told(job, "checkpoint")) == 1
    assert bench.claim().checkpoint_sha256 is not None


def test_a_runner_without_a_step_is_stopped(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("hung", stall_seconds=scaled(2.0))
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert bench.told(job, "released")[0].data["reason"] == "stalled"


def test_too_long_a_run_fails_with_time_limit(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("endless", max_running_seconds=1.5)
    assert job.error
    assert job.error.code == "time-limit"


def test_a_fenced_out_supervisor_kills_its_runner_and_writes_nothing(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("endless")
    pid = bench.runner_pid(job)
    assert bench.store.release(job.id, 1, reason="taken away", charged=False)
    successor = bench.claim("successor")
    finished(thread)
    now = bench.store.get(job.id)
    assert (now.state, now.fence, successor.fence) == (JobState.RUNNING, 2, 2)
    assert gone(pid)
    assert {event.fence for event in bench.store.events(job.id) if event.seq > 4} <= {2}


@pytest.mark.parametrize("damage", ["artifact-lost", "artifact-corrupt"])
def test_a_teacher_that_is_not_what_was_uploaded_fails_its_job_by_name(roaming_bench: Bench, damage: str) -> None:
    teacher_id = roaming_bench.submit().teacher.id
    if damage == "artifact-lost":
        roaming_bench.artifacts.delete(teacher_id)
    else:
        overwrite(roaming_bench.artifacts, teacher_id, b"Teacher")
    job = roaming_bench.attempt("done")
    assert (job.state, job.error and job.error.code) == (JobState.FAILED, damage)
    assert (roaming_bench.told(job, "checkpoint"), roaming_bench.workspaces()) == ([], [])


def test_a_bucket_that_does_not_answer_is_no_fault_of_the_job(bench: Bench, bucket: dict[str, str]) -> None:
    bench.submit()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    bench.artifacts = open_artifacts(bench.settings.model_copy(update={**bucket, "artifacts_endpoint_url": address}))
    job = bench.attempt("done")
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert bench.told(job, "released")[0].data["reason"].startswith("storage: ")


def test_a_stale_worker_never_publishes(roaming_bench: Bench) -> None:
    job = roaming_bench.submit()
    claim = roaming_bench.claim()
    assert roaming_bench.store.release(job.id, claim.fence, reason="taken away", charged=False)
    successor = roaming_bench.claim("successor")
    roaming_bench.supervisor("done", heartbeat_seconds=PATIENCE).supervise(claim, claimed_at=time.monotonic())
    assert roaming_bench.store.get(job.id).state is JobState.RUNNING
    assert roaming_bench.store.succeed(job.id, successor.fence, artifacts=[])
    assert list(roaming_bench.artifacts.digests()) == [job.teacher.id]


def test_a_supervisor_cut_off_from_the_ledger_stops_its_runner_before_the_lease_ends(bench: Bench) -> None:
    job = bench.submit()
    bench.shorten_leases(4.0)
    _, thread = bench.start("endless", heartbeat_seconds=PATIENCE)  # no heartbeat ever gets through
    bench.runner_pid(job)
    while thread.is_alive():
        assert bench.store.sweep().expired == []  # the lease has not ended yet
        time.sleep(0.02)
    released = bench.store.get(job.id)
    assert (released.state, released.attempt) == (JobState.QUEUED, 0)
    assert bench.told(job, "released")[0].data["reason"] == "self-fenced"


def test_a_ledger_that_hangs_cannot_keep_a_runner_alive(bench: Bench) -> None:
    job = bench.submit()
    lease_seconds = bench.shorten_leases(4.0)
    _, thread = bench.start("endless")
    pid = bench.runner_pid(job)
    with closing(sqlite3.connect(bench.settings.data_dir / "ledger.sqlite3", isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        until(lambda: gone(pid), seconds=lease_seconds)  # no heartbeat renews the lease from here on
        blocker.execute("ROLLBACK")
    finished(thread)
    released = bench.store.get(job.id)
    assert (released.state, released.attempt) == (JobState.QUEUED, 0)


def test_a_host_that_cannot_make_a_workspace_gives_the_job_back(bench: Bench) -> None:
    bench.submit()
    (bench.settings.data_dir / "work").write_text("in the way")
    job = bench.attempt("done")
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert bench.told(job, "released")[0].data["reason"].startswith("host trouble")


def test_a_runner_killed_for_want_of_memory_gets_one_more_try(bench: Bench) -> None:
    bench.submit()
    killed = RunnerExit(reason=None, last_message=None, status=-signal.SIGKILL, log_tail="")
    for _ in range(2):
        claim = bench.claim()
        context = AttemptContext(claim, bench.store, bench.artifacts, bench.settings)
        outcome = OutcomeHandler(context, Heartbeat(context, confirmed_at=time.monotonic()))
        outcome.handle(killed, best=None, oom_killed=True)
    job = bench.store.get(claim.job.id)
    assert job.error
    assert (job.error.code, job.attempt) == ("out-of-memory", 2)


def test_garbage_from_the_runner_changes_nothing(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("garbage")
    assert job.state is JobState.SUCCEEDED
    assert bench.artifact(job, "student.onnx") == b"student of 20 steps"


def test_a_flood_of_messages_becomes_a_few_writes(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("flood")
    assert job.state is JobState.SUCCEEDED
    assert len(bench.told(job, "published")) <= 200
    assert job.revision < scaled(60)  # one write a second


def test_a_file_outside_the_workspace_is_neither_published_nor_kept(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("thief")
    assert job.state is JobState.QUEUED
    assert "not in the workspace" in bench.told(job, "released")[0].data["reason"]
    assert bench.told(job, "checkpoint") == []


@pytest.mark.parametrize("act", ["incomplete", "liar", "generous"])
def test_files_that_are_not_what_was_agreed_are_not_published(bench: Bench, act: str) -> None:
    bench.submit()
    job = bench.attempt(act)
    assert (job.state, job.artifacts) == (JobState.QUEUED, [])
    assert bench.told(job, "released")[0].data["reason"].startswith("files refused")


def test_a_cancel_that_comes_with_the_last_message_wins(bench: Bench) -> None:
    job = bench.submit()
    claim = bench.claim()
    bench.store.request_cancel(job.id)
    bench.supervisor("done", heartbeat_seconds=PATIENCE).supervise(claim, claimed_at=time.monotonic())
    assert bench.store.get(job.id).state is JobState.CANCELLED
    assert bench.store.get(job.id).artifacts == []


def test_a_checkpoint_from_elsewhere_is_passed_on_while_there_is_another_worker(bench: Bench) -> None:
    bench.submit()
    bench.attempt("crash")
    bench.store.worker_seen("another", host="elsewhere", slots=1, device="cpu")
    supervisor = bench.supervisor("foreign", sweep_seconds=60.0)
    claim = bench.claim()
    supervisor.supervise(claim, claimed_at=time.monotonic())
    passed_on = bench.store.get(claim.job.id)
    assert (passed_on.state, passed_on.attempt) == (JobState.QUEUED, 1)
    supervisor.supervise(bench.claim(), claimed_at=time.monotonic())
    job = bench.store.get(claim.job.id)
    assert (job.state, bench.report(job)) == (JobState.SUCCEEDED, {"began_at": 0})
    assert len(bench.told(job, "started-over")) == 1


def test_it_is_not_passed_on_to_workers_that_would_not_take_it(bench: Bench) -> None:
    job = bench.submit(device="cpu")
    bench.attempt("crash")
    bench.store.worker_seen("another", host="elsewhere", slots=1, device="cuda")
    bench.supervisor("foreign", sweep_seconds=60.0).supervise(bench.claim(), claimed_at=time.monotonic())
    assert bench.store.get(job.id).state is JobState.SUCCEEDED
    assert len(bench.told(job, "started-over")) == 1


def test_what_a_runner_leaves_behind_dies_with_it(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("parent")
    assert job.state is JobState.SUCCEEDED
    until(lambda: not processes_with(bench.report(job)["grandchild"]))


def test_a_runner_knows_neither_database_nor_broker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DFKD_DATABASE_URL", "DFKD_BROKER_URL", "AWS_SECRET_ACCESS_KEY", "HOME"):
        monkeypatch.setenv(name, "secret")
    bench.submit()
    facts = bench.report(bench.attempt("tell"))
    assert "secret" not in facts["environment"].values()
    wanted = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0"}
    assert wanted.items() <= facts["environment"].items()
    assert (facts["core"], facts["session"], facts["threads"]) == (0, True, 2)
    assert {"name", "labels"}.isdisjoint(facts["spec"])


def test_workspaces_of_killed_workers_are_removed(bench: Bench) -> None:
    job = bench.submit()
    claim = bench.claim()
    work = bench.settings.data_dir / "work"
    mine, stale, unknown = work / job.id / "1", work / job.id / "0", work / "no-such-job" / "1"
    for workspace in (mine, stale, unknown):
        workspace.mkdir(parents=True)
    remove_stale_attempts(bench.settings, bench.store)
    assert claim.fence == 1
    assert set(bench.workspaces()) == {mine}
    assert Path(unknown.parent).exists() is False


def test_a_runner_killed_from_outside_is_noticed_at_once(bench: Bench) -> None:
    job = bench.submit()
    _, thread = bench.start("endless")
    pid = bench.runner_pid(job)
    os.kill(pid, signal.SIGKILL)
    finished(thread)
    assert not thread.is_alive()
    assert (bench.store.get(job.id).state, bench.store.get(job.id).attempt) == (JobState.QUEUED, 1)
    until(lambda: gone(pid))
