"""Faults of the disk: full, failing, slow, forgetful. Acknowledged data exists; wrong bytes are never served."""

import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.chaos.auditor import compare
from tests.chaos.deployment import Deployment, deployed, seconds_until
from tests.chaos.evidence import read_ledger, read_temporary
from tests.chaos.fault import Run, fault
from tests.chaos.history import Client, watching
from tests.chaos.servers import small_disk
from tests.e2e.teacher import write_teacher
from tests.patience import until
from tests.servers import short_directory

DISK_MIB = 12
IMAGE_MIB = 160


@pytest.fixture(scope="module")
def cramped() -> Iterator[Deployment]:
    """Everything on a file system of a few megabytes, but the ledger."""
    with ExitStack() as stack:
        place, ledger = stack.enter_context(small_disk(DISK_MIB)), stack.enter_context(short_directory())
        url = f"sqlite:///{ledger / 'ledger.sqlite3'}"
        yield stack.enter_context(deployed(place / "data", ledger_url=url))


def large_teacher(deployment: Deployment, run: Run, size: int) -> bytes:
    """Begins like a teacher, and is larger than the disk."""
    digest = deployment.teacher_id
    path = deployment.data_dir / "artifacts" / "blobs" / digest[:2] / digest
    return path.read_bytes()[:4096] + run.random.randbytes(size)


@fault("F40", cheap=True, needs=("root",))
def test_f40_no_space_while_uploading(cramped: Deployment, run: Run) -> None:
    before = cramped.footprint()
    with cramped.history.fault():
        call = cramped.client.upload(large_teacher(cramped, run, (DISK_MIB + 1) * 1024**2))
    assert (call.status, call.code) == (507, "storage-full")
    until(lambda: compare(before, cramped.footprint()) == [], seconds=5.0)
    small = cramped.client.upload(large_teacher(cramped, run, 1000))  # there is space again: it is refused as nonsense
    assert small.status == 422
    cramped.audit()


@fault("F41", needs=("root",))
def test_f41_no_space_at_a_checkpoint(cramped: Deployment, run: Run) -> None:
    job_id = cramped.accepted()
    cramped.until_step(job_id, run.random.randint(1, 30))
    with filled(cramped.data_dir.parent):
        until(lambda: "released" in [kind for kind, _ in cramped.events(job_id)] or not cramped.live_jobs())
        time.sleep(run.random.uniform(0.0, 1.0))
    began_at = time.monotonic()
    cramped.succeed(job_id)
    run.figure("ended after seconds of space", time.monotonic() - began_at)
    evidence = cramped.audit(checkpoint_steps=None)
    assert evidence.jobs[job_id].attempt == 1, cramped.events(job_id)  # not charged


@contextmanager
def filled(place: Path) -> Iterator[None]:
    """Nothing more can be written."""
    ballast = place / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        yield
    finally:
        ballast.unlink()


CALLS = ("fsync", "fdatasync", "rename", "pwrite64", "unlink", "mkdir")
ERRORS = ("EIO", "EDQUOT", "EROFS")


@fault("F42", needs=("strace",))
def test_f42_a_call_fails_in_the_worker(run: Run) -> None:
    call, error = CALLS[run.number % len(CALLS)], ERRORS[run.number // 2 % len(ERRORS)]
    k = 1 + run.random.randrange(12)
    sandbox = (
        {"DFKD_SANDBOX": "off"} if call == "mkdir" else {}
    )  # every sandbox makes directories: none would ever be made
    with deployed(workers=0) as deployment:
        inject = f"inject={call}:error={error}:when={k}"
        deployment.start_worker(
            wrapper=("strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject),
            **sandbox,
        )
        job_id = deployment.accepted(steps=20)
        deployment.succeed(job_id)
        (worker,) = deployment.workers
        assert worker.poll() is None
        deployment.drop_worker(worker)
        deployment.audit(checkpoint_steps=None, get_seconds=None)


@contextmanager
def loop_disk(image: Path, place: Path) -> Iterator[Path]:
    """An ext4 file system whose blocks are a file, mounted."""
    place.mkdir()
    # A commit every five minutes: nothing is written to the image but what somebody has asked for by fsync.
    subprocess.run(["mount", "-o", "loop,commit=300", image, place], check=True)
    try:
        yield place
    finally:
        deadline = time.monotonic() + 20
        while subprocess.run(["umount", place], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, subprocess.run(
                ["fuser", "-vm", place], capture_output=True, check=False
            )
            time.sleep(0.2)


@contextmanager
def everything_stopped(deployment: Deployment) -> Iterator[None]:
    """Nobody writes while the blocks are copied: a copy takes longer than an instant."""
    assert deployment.api is not None
    roots = [psutil.Process(process.pid) for process in (deployment.api, *deployment.workers)]
    processes = [child for root in roots for child in (root, *root.children(recursive=True))]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@fault("F43", needs=("root", "e2fsprogs", "loop devices"))
def test_f43_power_loss(tmp_path: Path, run: Run) -> None:
    """The blocks as they were on the device at some instant; what was acknowledged by then is there."""
    image, copy = tmp_path / "image", tmp_path / "copy"
    with image.open("wb") as file:
        file.truncate(IMAGE_MIB * 1024**2)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with loop_disk(image, tmp_path / "before") as place, deployed(place / "data") as deployment:
        job_ids = [deployment.accepted(steps=10), deployment.accepted()]
        deployment.until_job(job_ids[0], lambda call: call.state == "running")
        time.sleep(run.random.uniform(0.0, 5.0))
        job_ids.append(deployment.accepted(steps=1))
        for job_id in job_ids:
            deployment.client.get(job_id)  # what the client knows
        with everything_stopped(deployment):
            subprocess.run(["cp", "--sparse=always", image, copy], check=True)
        calls = list(deployment.history.calls)
        recipes, teacher_id = deployment.recipes, deployment.teacher_id
    with loop_disk(copy, tmp_path / "after") as place, ExitStack() as stack:
        again = Deployment(place / "data")
        stack.callback(again.stop)
        again.history.calls += calls
        again.recipes, again.teacher_id = recipes, teacher_id
        again.start_api()
        again.start_worker()
        again.succeed(*job_ids)
        again.audit(checkpoint_steps=None)


@pytest.fixture(scope="module")
def finished() -> Iterator[tuple[Deployment, str]]:
    """A deployment with a job that has ended."""
    with deployed(workers=1) as deployment:
        job_id = deployment.accepted(steps=10)
        deployment.succeed(job_id)
        yield deployment, job_id


@fault("F44", cheap=True, share=0.8)
def test_f44_a_flipped_bit_in_a_student(finished: tuple[Deployment, str], run: Run) -> None:
    deployment, job_id = finished
    deployment.history.expected_codes.add("artifact-corrupt")
    name = run.random.choice(["student.onnx", "student.safetensors", "report.json"])
    sha256 = read_ledger(deployment.ledger_url)[0][job_id].files[name]
    with flipped(deployment, sha256, run):
        call = deployment.client.download(job_id, name)
        assert (call.status, call.code) == (500, "artifact-corrupt")
    assert deployment.client.download(job_id, name).outcome == "ok"
    assert deployment.violations() == []


@contextmanager
def flipped(deployment: Deployment, sha256: str, run: Run) -> Iterator[None]:
    """One bit of a file is wrong."""
    path = deployment.data_dir / "artifacts" / "blobs" / sha256[:2] / sha256
    good = path.read_bytes()
    bad = bytearray(good)
    bad[run.random.randrange(len(bad))] ^= 1 << run.random.randrange(8)
    path.write_bytes(bad)
    try:
        yield
    finally:
        path.write_bytes(good)


@fault("F44", share=0.2)
def test_f44_a_flipped_bit_in_a_checkpoint(single: Deployment, run: Run) -> None:
    job_id = single.accepted()
    single.until_step(job_id, 16)
    single.kill_worker(psutil.Process(single.workers[0].pid))
    newest = read_ledger(single.ledger_url)[0][job_id].checkpoints[0]
    with flipped(single, newest, run):
        single.start_worker()
        single.succeed(job_id)
    single.audit(checkpoint_steps=None)


@fault("F45")
def test_f45_no_descriptors_left(single: Deployment, run: Run) -> None:
    assert single.api is not None
    api = psutil.Process(single.api.pid)
    job_id = single.accepted()
    limits, before = api.rlimit(resource.RLIMIT_NOFILE), api.num_fds()
    port = int(single.url.rpartition(":")[2])
    with single.history.fault():
        api.rlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        impatient = Client(single.url, single.history, timeout=httpx.Timeout(1.0))
        for _ in range(3):
            impatient.get(job_id)
        impatient.close()
        for connection in crowd:
            connection.close()
        seconds = seconds_until(lambda: single.client.get(job_id).outcome == "ok", seconds=20.0)
        api.rlimit(resource.RLIMIT_NOFILE, limits)
    run.figure("recovered after seconds", seconds)  # the plan says 5; on a busy machine it may be 15
    single.succeed(job_id)
    until(lambda: api.num_fds() <= before + 4, seconds=10.0)  # the pool of connections to the ledger may have grown
    single.audit()


@fault("F46", needs=("strace",))
def test_f46_a_slow_disk_delays_nobody_else(run: Run) -> None:
    slow = ("strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", "trace=fsync")
    with deployed(workers=1) as deployment:
        job_id = deployment.accepted()
        deployment.kill_api()
        deployment.start_api(wrapper=(*slow, "-e", "inject=fsync:delay_enter=3000000"))
        with watching(deployment.client, [job_id]):
            call = deployment.client.upload(_another_teacher())
        run.figure("slow upload seconds", call.seconds)
        run.figure("GET p99 seconds", deployment.history.slowest("get"))
        deployment.succeed(job_id)
        deployment.stop_traced_api()
        deployment.start_api()
        deployment.audit()
        assert read_temporary(deployment.data_dir) == []


def _another_teacher() -> bytes:
    """A good one that is not kept yet."""
    with short_directory() as directory:
        return write_teacher(directory / "teacher.onnx", seed=1).read_bytes()
