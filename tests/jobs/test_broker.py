"""Notifications of workers: they are sent if the broker answers, and never block their caller."""

import base64
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

from dfkd_core.spec.overrides import BadOption
from jobs.broker import ENOUGH, QUEUE, TASK, broker_answers, make_celery, notify, queue_of
from jobs.devices import DeviceClass
from jobs.settings import Settings, settings_from_environment
from tests.patience import PATIENCE, scaled, until
from tests.servers import Redis, running_redis

JOB_ID = "3f2b8c1e-0000-4000-8000-000000000000"


def celery_at(url: str | None) -> Celery:
    return make_celery(Settings(broker_url=url))


def timed_ring(celery: Celery) -> tuple[bool, float]:
    start = time.monotonic()
    rung = notify(celery, JOB_ID)
    return rung, time.monotonic() - start


@pytest.fixture
def hung_redis(redis_server: Redis) -> Iterator[Redis]:
    """A Redis that takes connections and never answers."""
    os.kill(redis_server.pid, signal.SIGSTOP)
    yield redis_server
    os.kill(redis_server.pid, signal.SIGCONT)


def test_a_message_holds_the_job_id_and_nothing_else(redis_server: Redis) -> None:
    assert notify(celery_at(redis_server.url), JOB_ID)
    with redis_server.client() as client:
        (raw,) = client.lrange(QUEUE, 0, -1)
    message = json.loads(raw)
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == ([JOB_ID], {})
    assert (message["content-type"], message["headers"]["task"]) == ("application/json", TASK)
    assert message["headers"]["ignore_result"]


@pytest.mark.parametrize("device_class", DeviceClass)
def test_bells_of_each_class_have_a_queue_of_their_own(redis_server: Redis, device_class: DeviceClass) -> None:
    assert notify(celery_at(redis_server.url), JOB_ID, device_class)
    with redis_server.client() as client:
        rung = {each: client.llen(queue_of(each)) for each in DeviceClass}
    assert rung == {each: int(each is device_class) for each in DeviceClass}


def test_where_nobody_listens_bells_do_not_pile_up(redis_server: Redis) -> None:
    celery = celery_at(redis_server.url)
    with redis_server.client() as client:
        client.rpush(queue_of(DeviceClass.GPU), *["a bell"] * (ENOUGH - 1))
        assert [notify(celery, JOB_ID, DeviceClass.GPU) for _ in range(3)] == [True] * 3
        assert client.llen(queue_of(DeviceClass.GPU)) == ENOUGH
        assert notify(celery, JOB_ID)
        assert client.llen(QUEUE) == 1


def test_without_a_broker_the_bell_is_silent() -> None:
    assert not notify(celery_at(None), JOB_ID)


@pytest.mark.parametrize("url", ["redis+socket://{here}/none.sock?virtual_host=0", "redis://127.0.0.1:1/0"])
def test_an_absent_redis_is_noticed_at_once(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rung, seconds = timed_ring(celery_at(url.format(here=tmp_path)))
    assert not rung
    assert seconds < scaled(0.7)
    (line,) = [record for record in caplog.records if record.name == "jobs.broker"]
    assert (line.levelno, line.__dict__["job_id"]) == (logging.WARNING, JOB_ID)


def test_a_hung_redis_holds_nobody_up_and_the_bell_works_again_afterwards(redis_server: Redis) -> None:
    celery = celery_at(redis_server.url)
    assert notify(celery, JOB_ID)
    os.kill(redis_server.pid, signal.SIGSTOP)
    rung, seconds = timed_ring(celery)
    os.kill(redis_server.pid, signal.SIGCONT)
    assert not rung
    assert seconds < scaled(1.5)
    until(lambda: notify(celery, JOB_ID))


def test_many_requests_at_once_wait_no_longer_than_one(hung_redis: Redis) -> None:
    celery = celery_at(hung_redis.url)
    outcomes: list[tuple[bool, float]] = []
    threads = [threading.Thread(target=lambda: outcomes.append(timed_ring(celery))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rung for rung, _ in outcomes] == [False] * 8
    assert max(seconds for _, seconds in outcomes) < scaled(2.0)


def test_whether_the_broker_answers_is_known_within_a_second(redis_server: Redis, tmp_path: Path) -> None:
    celery = celery_at(redis_server.url)
    until(lambda: broker_answers(celery))
    assert not broker_answers(celery_at(None))
    assert not broker_answers(celery_at(f"redis+socket://{tmp_path}/none.sock?virtual_host=0"))
    os.kill(redis_server.pid, signal.SIGSTOP)
    start = time.monotonic()
    assert not broker_answers(celery)
    assert time.monotonic() - start < scaled(1.5)
    os.kill(redis_server.pid, signal.SIGCONT)
    until(lambda: broker_answers(celery))


def test_a_full_redis_is_no_error() -> None:
    with running_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        assert not notify(celery_at(server.url), JOB_ID)


def test_ringing_leaves_no_connection_behind(redis_server: Redis) -> None:
    celery = celery_at(redis_server.url)
    with redis_server.client() as client:
        client.ping()
        before = len(client.client_list())
        for _ in range(20):
            until(lambda: notify(celery, JOB_ID))
        until(lambda: len(client.client_list()) == before)


def test_the_settings_are_those_of_a_doorbell() -> None:
    conf = celery_at("redis://127.0.0.1:1/0").conf
    assert not conf.task_acks_late
    assert conf.task_ignore_result
    assert conf.result_backend is None
    assert (conf.task_serializer, list(conf.accept_content)) == ("json", ["json"])
    assert conf.worker_prefetch_multiplier == 1
    assert not conf.worker_enable_remote_control
    assert not conf.worker_send_task_events
    assert conf.broker_connection_retry_on_startup
    options = conf.broker_transport_options
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (5.0, 1.0)
    assert (options["visibility_timeout"], options["health_check_interval"]) == (3600, 10)


def test_a_worker_hears_the_bell(redis_server: Redis) -> None:
    celery, heard, rang = celery_at(redis_server.url), [], threading.Event()

    @celery.task(name=TASK)  # type: ignore[untyped-decorator]
    def answer(job_id: str) -> None:
        heard.append(job_id)
        rang.set()

    with start_worker(celery, pool="threads", concurrency=1, perform_ping_check=False, shutdown_timeout=PATIENCE):
        assert notify(celery, JOB_ID)
        assert rang.wait(PATIENCE)
    assert heard == [JOB_ID]


@pytest.mark.parametrize("name", ["broker_url", "rate_limit_url"])
@pytest.mark.parametrize(
    "url", ["redis://redis:6379/0", "rediss://10.0.0.7:6379/0", "redis://dfkd@redis/0", "redis://:@[fd00::1]/0"]
)
def test_a_broker_elsewhere_needs_a_password(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DFKD_{name.upper()}", url)
    with pytest.raises(BadOption, match=f"DFKD_{name.upper()}: .*requirepass"):
        settings_from_environment()


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0", "redis://[::1]:6379/0", "redis://localhost/1", "redis+socket:///run/r.sock",
        "redis://:secret@redis:6379/0", "rediss://dfkd:secret@redis.example:6380/0",
    ],
)  # fmt: skip
def test_one_that_is_here_or_has_a_password_is_taken(url: str) -> None:
    assert Settings(broker_url=url).broker_url == url
