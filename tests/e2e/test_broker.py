"""The bell may be silent, killed or absent: jobs finish all the same."""

from pathlib import Path

from tests.e2e.service import Service, gone, running_apart, spec, until
from tests.servers import Redis


def test_redis_killed_in_mid_job_comes_back_and_the_job_finishes(service: Service, teacher: Path) -> None:
    job = service.client.submit(teacher, spec())
    waiting = service.client.submit(teacher, spec(seed=8))
    redis = until(lambda: service.find("redis-server") or service.find("valkey-server"))
    redis.kill()
    until(lambda: gone(redis))
    assert service.finish(job).state == "succeeded"
    assert service.finish(waiting).state == "succeeded"
    until(lambda: service.client.ready().status == "ok")


def test_without_a_broker_the_table_is_polled(teacher: Path, tmp_path: Path, free_port: int) -> None:
    with running_apart(tmp_path / "data", free_port) as apart:
        assert apart.finish(apart.client.submit(teacher, spec())).state == "succeeded"


def test_a_broker_that_is_never_there_delays_nothing_for_long(teacher: Path, tmp_path: Path, free_port: int) -> None:
    absent = f"redis+socket://{tmp_path / 'nothing.sock'}?virtual_host=0"
    with running_apart(tmp_path / "data", free_port, DFKD_BROKER_URL=absent) as apart:
        assert apart.finish(apart.client.submit(teacher, spec())).state == "succeeded"


def test_a_bell_starts_a_job_long_before_the_next_round(
    teacher: Path, tmp_path: Path, free_port: int, redis_server: Redis
) -> None:
    with running_apart(
        tmp_path / "data", free_port, DFKD_BROKER_URL=redis_server.url, DFKD_SWEEP_SECONDS="60"
    ) as apart:
        until(lambda: apart.client.ready().status == "ok")
        until(lambda: _listens(redis_server))
        job = apart.client.submit(teacher, spec(steps=50))
        until(lambda: apart.client.job(job.id).state != "queued", seconds=5.0)
        assert apart.finish(job).state == "succeeded"


def _listens(redis_server: Redis) -> bool:
    with redis_server.client() as client:
        return any(entry["cmd"] == "brpop" for entry in client.client_list())
