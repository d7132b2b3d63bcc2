"""Faults of processes: killed, paused, hung, out of memory. Jobs finish all the same, with the same bytes."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.chaos import science
from tests.chaos.auditor import takeovers
from tests.chaos.deployment import LEASE_SECONDS, STEPS, Deployment, deployed, seconds_until
from tests.chaos.evidence import read_ledger
from tests.chaos.fault import Run, fault
from tests.chaos.history import watching
from tests.e2e.service import gone
from tests.patience import scaled, until

JOB_SECONDS = 3.2  # of a job that nothing disturbs, roughly: instants are drawn from it
CGROUP = Path("/sys/fs/cgroup/memory")


def worker_of(deployment: Deployment, runner: psutil.Process) -> psutil.Process:
    """The worker that has started this; around the runner there may be processes that hold its sandbox."""
    above = {process.pid for process in runner.parents()}
    return next(psutil.Process(found.pid) for found in deployment.workers if found.pid in above)


def note_takeovers(deployment: Deployment, run: Run, job_id: str) -> None:
    """The figure of a run: how long the job was nobody's."""
    for lost, seconds in takeovers(deployment.evidence()):
        if lost == job_id and seconds is not None:
            run.figure("takeover seconds", seconds)


@fault("F01", share=0.8)
def test_f01_kill_9_of_the_worker(pair: Deployment, run: Run) -> None:
    job_id = pair.accepted()
    with watching(pair.client, [job_id]):
        pair.until_job(job_id, lambda call: call.state == "running")
        time.sleep(run.random.uniform(0.0, JOB_SECONDS))
        with suppress(AssertionError, psutil.Error):  # it may have ended already
            worker = worker_of(pair, pair.runner_of(seconds=0.1))
            pair.kill_worker(worker)
            pair.history.lose_worker_of(job_id)
            pair.start_worker()
        pair.succeed(job_id)
    pair.audit()
    note_takeovers(pair, run, job_id)


@fault("F02", short=True, share=0.8)
def test_f02_kill_9_of_the_runner(single: Deployment, run: Run) -> None:
    job_id = single.accepted(steps=2 * STEPS)  # or it may have ended before it is killed
    worker = psutil.Process(single.workers[0].pid)
    with watching(single.client, [job_id]):
        single.until_step(job_id, run.random.randint(1, STEPS))
        single.runner_of().kill()
        seconds = seconds_until(lambda: "released" in [kind for kind, _ in single.events(job_id)])
        single.succeed(job_id)
    evidence = single.audit()
    run.figure("requeue seconds", seconds)
    assert seconds < scaled(2.0)
    assert (evidence.jobs[job_id].attempt, worker.is_running()) == (2, True)  # charged, and only the runner died


@fault("F05")
def test_f05_the_runner_crashes_by_itself(single: Deployment, run: Run) -> None:
    seed = [science.SEGFAULT, science.ABORT, science.EXIT][run.number % 3]
    worker = psutil.Process(single.workers[0].pid)
    job_id = single.accepted(seed=seed)
    single.succeed(job_id)
    evidence = single.audit()
    assert (evidence.jobs[job_id].attempt, worker.is_running()) == (2, True)


@fault("F06")
def test_f06_a_process_is_paused_past_its_lease(pair: Deployment, run: Run) -> None:
    """The worker with its runner, the supervisor only, the runner only."""
    job_id = pair.accepted(steps=3 * STEPS)  # longer than the lease: a runner that nobody stops would go on
    pair.until_step(job_id, run.random.randint(1, STEPS // 2))
    runner = pair.runner_of()
    worker = worker_of(pair, runner)
    paused = [[worker, runner], [worker], [runner]][run.number % 3]
    fence = read_ledger(pair.ledger_url)[0][job_id].fence
    for process in paused:
        process.suspend()
    paused_at = time.monotonic()
    try:
        if paused == [worker]:
            until(lambda: gone(runner), seconds=2 * LEASE_SECONDS)
            run.figure("runner of a paused supervisor ends after seconds", time.monotonic() - paused_at)
            assert time.monotonic() - paused_at < LEASE_SECONDS + scaled(0.5)
        time.sleep(max(0.0, paused_at + run.random.uniform(1.2, 2.0) * LEASE_SECONDS - time.monotonic()))
    finally:
        for process in paused:
            with suppress(psutil.NoSuchProcess):
                process.resume()
    if runner not in paused or worker in paused:
        seconds = seconds_until(lambda: gone(runner))
        run.figure("zombie ends after seconds", seconds)
        assert seconds < scaled(2.0)
    pair.succeed(job_id)
    evidence = pair.audit()
    if worker in paused:
        assert evidence.jobs[job_id].fence > fence


@fault("F07")
def test_f07_sigterm_of_the_worker(single: Deployment, run: Run) -> None:
    job_id = single.accepted()
    with watching(single.client, [job_id]):
        single.until_job(job_id, lambda call: call.state == "running")
        time.sleep(run.random.uniform(0.0, JOB_SECONDS))
        began_at = time.monotonic()
        assert single.stop_worker(psutil.Process(single.workers[0].pid)) == 0
        run.figure("drain seconds", time.monotonic() - began_at)
        single.start_worker()
        single.succeed(job_id)
    evidence = single.audit(checkpoint_steps=1)  # the step in hand
    assert evidence.jobs[job_id].attempt == 1


@fault("F08")
def test_f08_a_hung_runner_is_stopped(impatient: Deployment, run: Run) -> None:
    job_id = impatient.accepted(seed=[science.SPIN, science.SLEEP][run.number % 2])
    impatient.until_step(job_id, science.FATAL_STEP - 5)
    began_at = time.monotonic()
    until(lambda: "released" in [kind for kind, _ in impatient.events(job_id)])
    run.figure("stopped after seconds", time.monotonic() - began_at)
    impatient.succeed(job_id)
    evidence = impatient.audit()
    released = [event.data["reason"] for event in evidence.jobs[job_id].events if event.kind == "released"]
    assert released == ["stalled"]


@pytest.fixture(scope="module")
def impatient() -> Iterator[Deployment]:
    """A runner without a step for four seconds is stopped; three crashes are poison."""
    with deployed(workers=1, DFKD_STALL_SECONDS="4", DFKD_MAX_CRASHES="3") as deployment:
        yield deployment


@fault("F09", needs=("root", "memory cgroup"))
def test_f09_the_oom_killer(single: Deployment, run: Run) -> None:
    with control_group(400 * 1024**2) as group:
        worker = single.start_worker()
        (group / "cgroup.procs").write_text(str(worker.pid))
        single.stop_worker(psutil.Process(single.workers[0].pid))  # the free one
        try:
            job_id, healthy = single.accepted(seed=science.HOG), single.accepted()
            ended, _ = single.finish(job_id, healthy)
            assert ended.state == "failed"
            evidence = single.audit()
            assert (evidence.jobs[job_id].error, evidence.jobs[job_id].attempt) == ("out-of-memory", 2)
            assert (evidence.jobs[healthy].state, evidence.jobs[healthy].attempt) == ("succeeded", 1)
            assert worker.is_running()
        finally:
            single.start_worker()
            single.stop_worker(worker)


@contextmanager
def control_group(limit_bytes: int) -> Iterator[Path]:
    """A memory control group of one's own."""
    group = CGROUP / f"dfkd-chaos-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield group
    finally:
        until(lambda: not (group / "cgroup.procs").read_text().strip(), seconds=30.0)
        group.rmdir()


@fault("F10")
def test_f10_memory_error_under_a_limit(single: Deployment, run: Run) -> None:
    fails_for_want_of_memory(single, science.LIMITED)


@fault("F11")
def test_f11_cuda_is_out_of_memory(single: Deployment, run: Run) -> None:
    """What comes after has a process, and so a GPU's memory, of its own."""
    fails_for_want_of_memory(single, science.CUDA)


def fails_for_want_of_memory(single: Deployment, seed: int) -> None:
    """At the second attempt, and the job behind it has all the memory there is."""
    job_id, healthy = single.accepted(seed=seed), single.accepted(steps=5)
    single.finish(job_id, healthy)
    evidence = single.audit()
    assert (evidence.jobs[job_id].error, evidence.jobs[job_id].attempt) == ("out-of-memory", 2)
    assert (evidence.jobs[healthy].state, evidence.jobs[healthy].attempt) == ("succeeded", 1)


@fault("F12")
def test_f12_a_loss_that_becomes_nan_is_not_tried_again(single: Deployment, run: Run) -> None:
    job_id = single.accepted(seed=science.DIVERGE)
    single.finish(job_id)
    evidence = single.audit()
    row = evidence.jobs[job_id]
    assert (row.error, row.attempt) == ("distillation-diverged", 1)
    assert str(science.FATAL_STEP) in row.events[-1].data["detail"]


@fault("F13")
def test_f13_a_poison_job_stops_and_blocks_nobody(impatient: Deployment, run: Run) -> None:
    job_id = impatient.accepted(seed=science.POISON)
    healthy = [impatient.accepted(steps=5) for _ in range(10)]
    impatient.succeed(*healthy)
    impatient.finish(job_id)
    row = impatient.audit().jobs[job_id]
    assert (row.error, row.attempt, row.fence) == ("poison", 3, 3)


@fault("F14")
def test_f14_an_orphaned_runner_dies_with_its_supervisor(pair: Deployment, run: Run) -> None:
    job_id = pair.accepted()
    pair.until_step(job_id, run.random.randint(1, STEPS // 2))
    runner = pair.runner_of()
    worker = worker_of(pair, runner)
    os.kill(worker.pid, signal.SIGKILL)  # not its group
    pair.history.lose_worker_of(job_id)
    seconds = seconds_until(lambda: gone(runner))
    run.figure("orphan ends after seconds", seconds)
    assert seconds < scaled(2.0)
    pair.forget_worker(worker)
    pair.start_worker()
    pair.succeed(job_id)
    pair.audit()


@fault("F15")
def test_f15_a_worker_dies_before_its_first_heartbeat(pair: Deployment, run: Run) -> None:
    job_id = pair.accepted()
    until(lambda: "claimed" in [kind for kind, _ in pair.events(job_id)])
    runner = pair.runner_of()
    pair.kill_worker(worker_of(pair, runner))
    pair.history.lose_worker_of(job_id)
    pair.start_worker()
    pair.succeed(job_id)
    pair.audit()
    note_takeovers(pair, run, job_id)


@fault("F16", needs=("root", "util-linux"))
def test_f16_a_worker_with_the_same_host_name_and_process_id(tmp_path: Path, run: Run) -> None:
    """In a process namespace of its own every worker is process 1."""
    apart = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
    with deployed(workers=0) as deployment:
        deployment.start_worker(wrapper=apart)
        job_id = deployment.accepted()
        deployment.until_step(job_id, 6)
        deployment.kill_worker(psutil.Process(deployment.workers[0].pid))
        deployment.history.lose_worker_of(job_id)
        deployment.start_worker(wrapper=apart)
        deployment.succeed(job_id)
        evidence = deployment.audit(takeover_seconds=scaled(20.0))  # the start of a worker included
        owners = {event.data["worker"] for event in evidence.jobs[job_id].events if event.kind == "claimed"}
        assert len(owners) == 2
        note_takeovers(deployment, run, job_id)
        deployment.drop_worker(deployment.workers[0])  # `unshare` passes no signal on


@fault("F03", needs=("strace",))
def test_f03_a_crash_at_a_durable_step(run: Run) -> None:
    """SIGKILL at the k-th call of one kind that the worker makes, then another worker."""
    calls = ("fsync", "fdatasync", "rename", "unlink", "mkdir", "pwrite64")
    call, k = calls[run.number % len(calls)], 1 + run.number // len(calls)
    inject = f"inject={call}:signal=KILL:when={k}"
    with deployed(workers=0) as deployment:
        job_id = deployment.accepted(steps=20)
        wrapper = ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
        deployment.start_worker(wrapper=wrapper)
        (tracer,) = deployment.workers
        until(lambda: tracer.poll() is not None or not deployment.live_jobs(), seconds=60.0)
        run.figure("kills", float(tracer.poll() is not None))
        deployment.drop_worker(tracer)
        deployment.start_worker()
        deployment.succeed(job_id)
        deployment.audit(get_seconds=None)


@fault("F04", needs=("strace",))
def test_f04_a_kill_inside_the_writing_of_a_checkpoint(real: Deployment, run: Run, student: str) -> None:
    job_id = real.accepted(real=student, steps=REAL_STEPS, seed=7)
    runner = real.runner_of()
    real.until_job(job_id, lambda call: call.step > 0, seconds=120.0)
    call = ["rename", "write", "fsync"][run.number % 3]
    inject = f"inject={call}:signal=KILL:when=1"
    subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "-p", str(runner.pid), "-e", f"trace={call}", "-e", inject],
        check=False,
        timeout=120,
        capture_output=True,
    )
    assert gone(runner)
    real.succeed(job_id, seconds=240.0)
    real.audit(checkpoint_steps=None)


# The science itself: the student of a real training is the one of an undisturbed run

REAL_STEPS = 60


@pytest.fixture(scope="module")
def real() -> Iterator[Deployment]:
    """API and two workers with the real science."""
    with deployed(workers=2, real=True) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def student(real: Deployment) -> str:
    """The digest of the student of a training that nothing disturbs."""
    job_id = real.accepted(real="not known yet", steps=REAL_STEPS, seed=7)
    (call,) = real.finish(job_id, seconds=240.0)
    assert call.state == "succeeded"
    digest = real.client.download(job_id).sha256
    assert digest is not None
    return digest


@fault("F01", share=0.2)
def test_f01_kill_9_of_the_worker_in_a_real_training(real: Deployment, run: Run, student: str) -> None:
    job_id = real.accepted(real=student, steps=REAL_STEPS, seed=7)
    runner = real.runner_of()
    real.until_job(job_id, lambda call: call.step >= run.random.randint(0, REAL_STEPS - 5), seconds=120.0)
    real.kill_worker(worker_of(real, runner))
    real.history.lose_worker_of(job_id)
    real.start_worker(real=True)
    real.succeed(job_id, seconds=240.0)
    real.audit(checkpoint_steps=None)
    note_takeovers(real, run, job_id)


@fault("F02", share=0.2)
def test_f02_kill_9_of_the_runner_in_a_real_training(real: Deployment, run: Run, student: str) -> None:
    job_id = real.accepted(real=student, steps=REAL_STEPS, seed=7)
    runner = real.runner_of()
    real.until_job(job_id, lambda call: call.step >= run.random.randint(0, REAL_STEPS - 5), seconds=120.0)
    runner.kill()
    seconds = seconds_until(lambda: "released" in [kind for kind, _ in real.events(job_id)])
    run.figure("requeue seconds", seconds)
    assert seconds < scaled(2.0)
    real.succeed(job_id, seconds=240.0)
    real.audit(checkpoint_steps=None)
