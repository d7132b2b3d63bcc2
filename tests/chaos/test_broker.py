"""Faults of the broker: accepted jobs run and requests do not wait, even if Redis fails."""

import json
import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import redis

from jobs.broker import make_celery, notify
from jobs.settings import Settings
from tests.chaos.deployment import Deployment, deployed
from tests.chaos.fault import Run, fault
from tests.chaos.servers import RedisServer, restartable_redis
from tests.chaos.table import chaos_count
from tests.patience import scaled, until

RING_SECONDS = scaled(2.0)
POST_SECONDS = scaled(1.5)
MESSAGES = 50  # hostile ones in one run of the plan
SHORT_MESSAGES = 18  # and in the run of `make test`: three of each kind
KINDS = 6
SHORT = 4  # steps of a job of which only the end counts


@pytest.fixture(scope="module")
def brokered(redis_server: RedisServer) -> Iterator[Deployment]:
    """API and two workers around a Redis; the table is looked at every two seconds."""
    with deployed(workers=2, redis_socket=redis_server.socket, DFKD_SWEEP_SECONDS=str(RING_SECONDS)) as deployment:
        until(lambda: num_listeners(redis_server) == 2)
        yield deployment


@pytest.fixture(scope="module")
def bell_only(redis_server: RedisServer) -> Iterator[Deployment]:
    """One worker that looks at the table when the bell rings, and hardly ever otherwise."""
    with ExitStack() as stack:
        server = stack.enter_context(restartable_redis())
        deployment = stack.enter_context(deployed(redis_socket=server.socket, DFKD_SWEEP_SECONDS="600"))
        until(lambda: num_listeners(server) == 1)
        yield deployment


def num_listeners(server: RedisServer) -> int:
    """How many workers wait for bells."""
    try:
        with server.client() as client:
            return sum(entry["cmd"] == "brpop" for entry in client.client_list())
    except redis.RedisError:
        return 0


def several(deployment: Deployment) -> list[str]:
    """Two jobs that run and four that wait."""
    running = [deployment.accepted() for _ in range(2)]
    waiting = [deployment.accepted(steps=SHORT) for _ in range(4)]
    for job_id in running:
        deployment.until_step(job_id, 2)
    return running + waiting


@fault("F20", short=True)
def test_f20_redis_comes_back_empty(brokered: Deployment, redis_server: RedisServer, run: Run) -> None:
    job_ids = several(brokered)
    redis_server.kill()
    time.sleep(run.random.uniform(0.0, 1.0))
    redis_server.start()
    began_at = time.monotonic()
    brokered.succeed(*job_ids)
    run.figure("all ended after seconds", time.monotonic() - began_at)
    brokered.audit()


@fault("F21")
def test_f21_everything_in_redis_is_deleted(brokered: Deployment, redis_server: RedisServer, run: Run) -> None:
    job_ids = several(brokered)
    with redis_server.client() as client:
        client.flushall()
    brokered.succeed(*job_ids)
    brokered.audit()


@fault("F22", short=True)
def test_f22_redis_hangs(brokered: Deployment, redis_server: RedisServer, run: Run) -> None:
    job_ids = []
    with redis_server.hung():
        ends = time.monotonic() + RING_SECONDS + 0.5
        while time.monotonic() < ends:
            job_ids.append(brokered.accepted(steps=SHORT))
            run.figure("POST seconds", brokered.history.of("submit")[-1].seconds)
            time.sleep(0.4)
        brokered.until_job(job_ids[0], lambda call: call.state != "queued")  # the table is looked at meanwhile
    brokered.succeed(*job_ids)
    brokered.audit()
    assert brokered.history.slowest("submit") < POST_SECONDS


@fault("F23")
def test_f23_redis_is_absent_from_the_start(tmp_path: Path, run: Run) -> None:
    with deployed(workers=1, redis_socket=tmp_path / "nothing.sock") as deployment:
        job_ids = [deployment.accepted(steps=SHORT) for _ in range(3)]
        deployment.succeed(*job_ids)
        deployment.audit()


@fault("F24")
def test_f24_connections_are_cut(bell_only: Deployment, run: Run) -> None:
    """By the bell alone: a worker that has become deaf would leave the job where it is."""
    server = RedisServer(Path(str(bell_only.redis_socket)).parent)
    with server.client() as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    began_at = time.monotonic()
    until(lambda: num_listeners(server) == 1)
    run.figure("listening again after seconds", time.monotonic() - began_at)
    job_id = bell_only.accepted(steps=1)
    bell_only.until_job(job_id, lambda call: call.state != "queued")
    run.figure("picked up after seconds", time.monotonic() - began_at)
    bell_only.succeed(job_id)
    bell_only.audit()


@fault("F25")
def test_f25_redis_has_no_memory_left(brokered: Deployment, redis_server: RedisServer, run: Run) -> None:
    policy = ["noeviction", "allkeys-random"][run.number % 2]
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", "1mb")
        try:
            job_ids = several(brokered)
            brokered.succeed(*job_ids)
        finally:
            client.config_set("maxmemory", "0")
    brokered.audit()


@fault("F26")
def test_f26_a_bell_a_hundred_times(brokered: Deployment, redis_server: RedisServer, run: Run) -> None:
    job_id = brokered.accepted(steps=SHORT)
    celery = make_celery(Settings(broker_url=redis_server.url))
    rung = sum(notify(celery, job_id) for _ in range(100))
    brokered.succeed(job_id)
    evidence = brokered.audit()
    claims = [event for event in evidence.jobs[job_id].events if event.kind == "claimed"]
    assert (rung, len(claims), evidence.bells_left) == (100, 1, 0)


class _Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def hostile(run: Run, kind: int, canary: Path, template: bytes) -> bytes:
    """One message of that kind, which nobody should have sent."""
    random = run.random
    if kind == 0:
        return random.randbytes(random.randint(0, 500))
    if kind == 1:
        return pickle.dumps(_Canary(canary))
    envelope = json.loads(template)
    if kind == 2:
        envelope["content-type"], envelope["content-encoding"] = "application/x-python-serialize", "binary"
        envelope["body"] = pickle.dumps(_Canary(canary)).hex()
    elif kind == 3:
        envelope["headers"]["task"] = random.choice(["no.such.task", "", "celery.chord", "os.system"])
    elif kind == 4:
        envelope["body"] = "A" * random.choice([10, 10_000, 10_000_000])
    else:
        text = bytearray(template)
        for _ in range(random.randint(1, 20)):
            text[random.randrange(len(text))] = random.randrange(256)
        return bytes(text)
    return json.dumps(envelope).encode()


def message(server: RedisServer) -> bytes:
    """A bell as it travels, taken before anybody listens."""
    celery = make_celery(Settings(broker_url=server.url.replace("virtual_host=0", "virtual_host=7")))
    assert notify(celery, str(uuid.uuid4()))
    with redis.Redis(unix_socket_path=str(server.socket), db=7) as client:
        found = client.lpop("dfkd")
        assert isinstance(found, bytes)
        return found


@fault("F27", short=True)
def test_f27_hostile_messages(brokered: Deployment, redis_server: RedisServer, tmp_path: Path, run: Run) -> None:
    canary = tmp_path / "canary"
    workers = [psutil.Process(worker.pid) for worker in brokered.workers]
    template = message(redis_server)
    count = SHORT_MESSAGES if chaos_count() is None else MESSAGES
    kinds = [number % KINDS for number in range(count)]
    run.random.shuffle(kinds)
    with redis_server.client() as client:
        for kind in kinds:
            client.lpush("dfkd", hostile(run, kind, canary, template))
    job_id = brokered.accepted(steps=SHORT)
    brokered.succeed(job_id)
    seconds = _consumed(redis_server)
    run.figure("consumed after seconds", seconds)
    assert all(worker.is_running() for worker in workers)
    assert not canary.exists()
    brokered.audit()


def _consumed(server: RedisServer) -> float:
    began_at = time.monotonic()
    with server.client() as client:
        until(lambda: client.llen("dfkd") == 0)
    return time.monotonic() - began_at


@fault("F28")
def test_f28_every_bell_is_lost(run: Run) -> None:
    """A Redis that takes no message."""
    with restartable_redis() as server:
        server.kill()
        server.start("--rename-command", "LPUSH", "")
        with deployed(workers=1, redis_socket=server.socket, DFKD_SWEEP_SECONDS=str(RING_SECONDS)) as deployment:
            until(lambda: num_listeners(server) == 1)
            for _ in range(3):
                began_at = time.monotonic()
                job_id = deployment.accepted(steps=SHORT)
                deployment.until_job(job_id, lambda call: call.state != "queued")
                run.figure("start delay seconds", time.monotonic() - began_at)
                deployment.succeed(job_id)
            deployment.audit()


@fault("F71")
def test_f71_a_cancel_while_redis_is_down(brokered: Deployment, redis_server: RedisServer, run: Run) -> None:
    job_ids = [brokered.accepted(), brokered.accepted(), brokered.accepted()]
    brokered.until_step(job_ids[0], 2)
    redis_server.kill()
    try:
        began_at = time.monotonic()
        cancels = [threading.Thread(target=brokered.client.cancel, args=(job_id,)) for job_id in job_ids]
        for thread in cancels:
            thread.start()
        for thread in cancels:
            thread.join()
        ended = brokered.finish(*job_ids)
        run.figure("cancelled after seconds", time.monotonic() - began_at)
    finally:
        redis_server.start()
    assert {call.state for call in ended} == {"cancelled"}
    brokered.audit()
