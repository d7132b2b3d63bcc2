"""Machines that share no disk: PostgreSQL, Redis and a bucket are all that API and workers have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_apart, spec, start_worker
from tests.servers import Redis

pytestmark = pytest.mark.slow


@pytest.fixture
def shared(postgres_url: str, redis_server: Redis, bucket: dict[str, str]) -> dict[str, str]:
    """The environment that every machine has."""
    places = {f"DFKD_{name.upper()}": value for name, value in bucket.items()}
    return {"DFKD_DATABASE_URL": postgres_url, "DFKD_BROKER_URL": redis_server.url, **places}


@pytest.fixture
def apart(shared: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    """An API on one machine and a worker on another."""
    with running_apart(tmp_path / "api", worker_dir=tmp_path / "worker", **shared) as running:
        yield running


def test_the_student_is_the_one_that_a_directory_would_have_given(
    apart: Service, teacher: Path, reference: Path, tmp_path: Path
) -> None:
    job = apart.succeed(apart.client.submit(teacher, spec()))
    assert apart.student(job, tmp_path / "out") == (reference / "student.onnx").read_bytes()
    left = [path for name in ("api", "worker") for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert [path for path in left if not path.name.startswith("ledger.sqlite3")] == []


def test_another_machine_goes_on_from_the_checkpoint_of_a_dead_one(
    apart: Service, shared: dict[str, str], teacher: Path, reference: Path, tmp_path: Path
) -> None:
    job = apart.in_the_middle(apart.client.submit(teacher, spec()))
    step = apart.client.job(job.id).progress.step
    apart.worker().kill()
    apart.roots.append(start_worker(tmp_path / "another", **shared))
    job = apart.succeed(job)
    assert apart.student(job, tmp_path / "out") == (reference / "student.onnx").read_bytes()
    kinds = [event.kind for event in apart.client.events(job.id)]
    assert (job.attempt, kinds.count("claimed"), kinds.count("started-over")) == (2, 2, 0)
    assert step > 0
