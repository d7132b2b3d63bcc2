"""Which jobs a worker takes by its device, and which queues it consumes."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.broker import make_celery, notify, queue_of
from jobs.devices import DeviceClass
from jobs.models import JobState
from jobs.settings import Settings
from tests.patience import PATIENCE, until
from tests.servers import Redis
from tests.worker.conftest import Bench, script
from worker.slots import WorkerPool

ROOT = Path(__file__).resolve().parents[2]


def test_a_worker_leaves_jobs_of_another_class_alone_also_when_it_polls(bench: Bench) -> None:
    for_gpu, for_any, for_cpu = (bench.submit(device=device) for device in ("gpu", None, "cpu"))
    pool = WorkerPool(bench.settings, bench.store, bench.artifacts, command=script("done"))
    pool.start()
    until(lambda: all(bench.store.get(job.id).state is JobState.SUCCEEDED for job in (for_any, for_cpu)))
    pool.drain()
    assert bench.store.get(for_gpu.id).state is JobState.QUEUED
    on_gpu = bench.settings.model_copy(update={"worker_device": "cuda"})
    pool = WorkerPool(on_gpu, bench.store, bench.artifacts, command=script("done"))
    pool.start()
    until(lambda: bench.store.get(for_gpu.id).state is JobState.SUCCEEDED)
    pool.drain()


def test_a_sweep_rings_the_bell_of_the_class(bench: Bench) -> None:
    for_gpu, for_any = bench.submit(device="gpu"), bench.submit()
    rung: dict[str, DeviceClass] = {}

    def note(job_id: str, device_class: DeviceClass) -> bool:
        rung[job_id] = device_class
        return True

    pool = WorkerPool(bench.settings, bench.store, bench.artifacts, notify=note, command=script("endless"))
    pool._maintain()
    assert rung == {for_gpu.id: DeviceClass.GPU, for_any.id: DeviceClass.ANY}


LISTENER = """
import sys
from jobs.devices import DeviceClass
from jobs.broker import make_celery
from jobs.settings import Settings
from worker.doorbell import NotificationConsumer

celery = make_celery(Settings(broker_url=sys.argv[1]))
wake = lambda: print("heard", flush=True)
NotificationConsumer(celery, wake, device_class=DeviceClass.GPU, slots=1, name="of-a-test").start()
sys.stdin.readline()
"""


def test_a_worker_hears_the_bells_of_its_class_and_those_for_everybody(redis_server: Redis) -> None:
    celery = make_celery(Settings(broker_url=redis_server.url))
    for device_class in DeviceClass:
        assert notify(celery, "a-job", device_class)
    command = [sys.executable, "-c", LISTENER, redis_server.url]
    pipes: dict[str, int] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with redis_server.client() as client, subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as listener:
        try:
            left = {DeviceClass.ANY: 0, DeviceClass.CPU: 1, DeviceClass.GPU: 0}  # nobody here is for the CPU's
            until(lambda: {each: client.llen(queue_of(each)) for each in DeviceClass} == left)
            assert listener.stdout is not None
            assert [listener.stdout.readline() for _ in range(2)] == ["heard\n"] * 2
        finally:
            listener.kill()


def test_a_gpu_serves_one_runner_at_a_time() -> None:
    with pytest.raises(ValidationError, match="DFKD_WORKER_SLOTS must be 1"):
        Settings(worker_slots=2, worker_device="cuda:0")
    assert Settings(worker_slots=2, worker_device="cpu").worker_device_class is DeviceClass.CPU
    assert Settings(worker_slots=1, worker_device="cuda").worker_device_class is DeviceClass.GPU


def test_a_worker_that_is_told_otherwise_says_so_and_does_not_start(tmp_path: Path) -> None:
    told = {"DFKD_WORKER_SLOTS": "2", "DFKD_WORKER_DEVICE": "cuda", "DFKD_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "worker"]
    ended = subprocess.run(command, env=told, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("the worker cannot start: DFKD_WORKER_DEVICE:")
    assert "start one worker for each GPU" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []
