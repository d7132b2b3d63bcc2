"""Workers: their heartbeat rows hold what they measured, and the newest measurement of a class outlives its worker."""

import uuid

from sqlalchemy import update

from jobs.db import tables
from jobs.db.db_time import now
from jobs.devices import DeviceClass
from jobs.models import ClassEstimate, Job
from jobs.store import Store
from tests.builders import job_spec, teacher_ref, worker_speed
from tests.patience import PATIENCE


def seen(store: Store, worker_id: str, **measured: object) -> None:
    """The heartbeat of a worker that has measured itself."""
    options = {"host": "box", "slots": 1, "device": "cpu", "speed": worker_speed(), **measured}
    store.worker_seen(worker_id, **options)  # type: ignore[arg-type]


def submitted(store: Store, *estimates: ClassEstimate) -> Job:
    teacher, _ = store.put_teacher(teacher_ref())
    return store.create(str(uuid.uuid4()), job_spec(), teacher.id, estimate=estimates or None)


def estimate(memory_bytes: int, worker_class: str = "cpu-2") -> ClassEstimate:
    return ClassEstimate(worker_class=worker_class, seconds=60.0, memory_bytes=memory_bytes)


def test_a_worker_that_has_not_measured_itself_has_no_class(store: Store) -> None:
    store.worker_seen("a", host="box", slots=1, device="cpu")
    assert store.worker_classes(PATIENCE) == []
    assert [worker.worker_class for worker in store.live_workers(PATIENCE)] == [None]


def test_workers_with_as_many_threads_are_one_class_and_the_slowest_decides(store: Store) -> None:
    seen(store, "a", speed=worker_speed(faster=3.0), memory_bytes=10**9, slots=2)
    seen(store, "b", speed=worker_speed(), memory_bytes=3 * 10**9)
    seen(store, "c", speed=worker_speed(device="NVIDIA H200", device_bytes=10**11), device="cuda:0")
    cpu, gpu = store.worker_classes(PATIENCE)
    assert (cpu.name, cpu.device_class, cpu.slots, cpu.memory_bytes) == ("cpu-2", DeviceClass.CPU, 3, 3 * 10**9)
    assert cpu.speed == worker_speed()
    assert (gpu.name, gpu.device_class, gpu.memory_bytes) == ("gpu-nvidia-h200", DeviceClass.GPU, None)


def test_the_newest_measurement_of_a_class_outlives_its_worker(store: Store) -> None:
    seen(store, "a")
    seen(store, "b", speed=worker_speed(faster=2.0))
    store.worker_gone("b")
    store.worker_gone("a")
    assert store.live_workers(PATIENCE) == []
    (left,) = store.worker_classes(PATIENCE)
    assert (left.slots, left.speed) in [(1, worker_speed()), (1, worker_speed(faster=2.0))]
    seen(store, "c", speed=worker_speed(faster=5.0))
    assert [known.speed for known in store.worker_classes(PATIENCE)] == [worker_speed(faster=5.0)]


def test_a_worker_without_a_measurement_leaves_nothing_behind(store: Store) -> None:
    store.worker_seen("a", host="box", slots=1, device="cpu")
    store.worker_gone("a")
    assert store.live_workers(PATIENCE) == []
    assert store.worker_classes(PATIENCE) == []


def test_a_class_is_known_after_a_day_without_a_worker(store: Store) -> None:
    seen(store, "lost")
    seen(store, "mute", speed=None)
    yesterday = update(tables.workers).values(seen_at=now(-2 * 86400.0))
    store._database.write(lambda transaction: transaction.connection.execute(yesterday))
    store.worker_seen("new", host="box", slots=1, device="cuda")
    assert [known.name for known in store.worker_classes(PATIENCE)] == ["cpu-2"]
    assert [worker.id for worker in store.live_workers(PATIENCE)] == ["new"]


def test_a_measurement_of_another_version_is_not_read(store: Store) -> None:
    seen(store, "a", speed=worker_speed(version=0))
    seen(store, "b")
    broken = update(tables.workers).where(tables.workers.c.id == "b").values(speed='{"threads": "many"}')
    store._database.write(lambda transaction: transaction.connection.execute(broken))
    assert store.worker_classes(PATIENCE) == []


def test_a_job_shows_the_estimate_that_it_was_accepted_with(store: Store) -> None:
    with_estimate = submitted(store, estimate(10**9), estimate(4 * 10**8, "gpu-nvidia-h200"))
    assert store.get(with_estimate.id).estimate == [estimate(10**9), estimate(4 * 10**8, "gpu-nvidia-h200")]
    assert submitted(store).estimate is None


def test_a_worker_leaves_a_job_that_its_memory_cannot_hold(store: Store) -> None:
    large, small = submitted(store, estimate(4 * 10**9)), submitted(store, estimate(10**9))
    claimed = store.claim("little", PATIENCE, 2, memory_bytes=2 * 10**9)
    assert claimed is not None
    assert claimed.job.id == small.id
    assert store.claim("little", PATIENCE, 2, memory_bytes=2 * 10**9) is None
    claimed = store.claim("big", PATIENCE, 2, memory_bytes=5 * 10**9)
    assert claimed is not None
    assert claimed.job.id == large.id


def test_memory_of_the_other_device_class_does_not_count(store: Store) -> None:
    job = submitted(store, estimate(4 * 10**9), estimate(10**9, "gpu-nvidia-h200"))
    assert store.claim("little", PATIENCE, 2, memory_bytes=2 * 10**9) is None
    claimed = store.claim("card", PATIENCE, 2, DeviceClass.GPU, memory_bytes=2 * 10**9)
    assert claimed is not None
    assert claimed.job.id == job.id


def test_a_job_without_an_estimate_is_anybodys(store: Store) -> None:
    job = submitted(store)
    claimed = store.claim("little", PATIENCE, 2, memory_bytes=1)
    assert claimed is not None
    assert claimed.job.id == job.id
