"""Faults of PostgreSQL: crashed, hung, full of connections, silent after a commit. No job is lost or doubled."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import psycopg
import pytest

from tests.chaos.deployment import LEASE_SECONDS, Deployment, deployed
from tests.chaos.fault import Run, fault
from tests.chaos.history import Client
from tests.chaos.servers import PostgresServer, RedisServer, Wire, restartable_postgres, wire_to
from tests.e2e.service import gone
from tests.patience import until

SHORT = 6
LATEST_SECONDS = 4.0  # the plan says 3; three tries of a connection take 2.5 s at most, and machines are busy
MAX_CONNECTIONS = 30


@pytest.fixture(scope="module")
def on_postgres(postgres: PostgresServer, redis_server: RedisServer) -> Iterator[Deployment]:
    """API and two workers on PostgreSQL and Redis."""
    with deployed(workers=2, ledger_url=postgres.url(), redis_socket=redis_server.socket) as deployment:
        yield deployment


@fault("F30")
def test_f30_crashes_under_load(on_postgres: Deployment, postgres: PostgresServer, run: Run) -> None:
    """Jobs are submitted all the time; submissions in doubt are sent again under their keys."""
    submitting = threading.Thread(target=_submit, args=(on_postgres, 8))
    with on_postgres.history.fault():
        submitting.start()
        for _ in range(2):
            time.sleep(run.random.uniform(0.5, 3.0))
            postgres.crash()
            postgres.start()
        submitting.join()
    on_postgres.client.settle()
    until(lambda: not on_postgres.live_jobs(), seconds=90.0)
    evidence = on_postgres.audit(checkpoint_steps=None)
    assert {row.state for row in evidence.jobs.values()} == {"succeeded"}


def _submit(deployment: Deployment, count: int) -> None:
    client = Client(deployment.url, deployment.history)
    for _ in range(count):
        deployment.submit(steps=SHORT, client=client)
        time.sleep(0.5)
    client.close()


@fault("F31")
def test_f31_postgresql_hangs(on_postgres: Deployment, postgres: PostgresServer, run: Run) -> None:
    job_id = on_postgres.accepted(steps=120)
    on_postgres.until_step(job_id, 2)
    runner = on_postgres.runner_of()
    with on_postgres.history.fault(), postgres.hung():
        began_at = time.monotonic()
        while time.monotonic() - began_at < 2 * LEASE_SECONDS:
            call = on_postgres.client.get(job_id)
            run.figure("answer after seconds", call.seconds)
            assert (call.status, call.retry_after) == (503, True)
            assert call.seconds < LATEST_SECONDS
        assert gone(runner)  # the lease is over, and nobody could know whether another has begun
    on_postgres.succeed(job_id)
    on_postgres.audit(checkpoint_steps=None)


@fault("F32")
def test_f32_connections_are_exhausted(run: Run) -> None:
    with restartable_postgres("-c", f"max_connections={MAX_CONNECTIONS}") as server, ExitStack() as stack:
        deployment = stack.enter_context(deployed(workers=1, ledger_url=server.url()))
        job_id = deployment.accepted()
        deployment.until_step(job_id, 2)
        with deployment.history.fault(), ExitStack() as held:
            _hold_all(server, held)
            calls = [deployment.submit(steps=1) for _ in range(5)]
            assert all(call.status in {202, 503} and call.seconds < LATEST_SECONDS for call in calls)
        began_at = time.monotonic()
        until(lambda: deployment.submit(steps=1).outcome == "ok", seconds=20.0)
        run.figure("recovered after seconds", time.monotonic() - began_at)
        assert time.monotonic() - began_at < 5.0
        deployment.succeed(job_id)
        deployment.audit(checkpoint_steps=None)


def _hold_all(server: PostgresServer, held: ExitStack) -> None:
    """Take every connection that is to be had, also those of clients that are cut off."""
    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    while True:
        try:
            held.enter_context(server.connect())
        except psycopg.OperationalError:
            return


@pytest.fixture(scope="module")
def wired(postgres: PostgresServer) -> Iterator[tuple[Deployment, Wire]]:
    """The API behind a wire of its own; the worker has its own connection."""
    with ExitStack() as stack:
        server = stack.enter_context(restartable_postgres())
        wire, url = stack.enter_context(wire_to(server))
        deployment = stack.enter_context(deployed(workers=0, ledger_url=server.url(), DFKD_DATABASE_URL=url))
        deployment.start_worker(DFKD_DATABASE_URL=server.url())
        yield deployment, wire


@fault("F33")
def test_f33_the_reply_to_a_commit_is_lost(wired: tuple[Deployment, Wire], run: Run) -> None:
    deployment, wire = wired
    lost = wire.lost
    skip = run.number % 2  # of the key, or of the job
    wire.replies_to_lose = 1 + skip
    with deployment.history.fault():
        call = deployment.submit(steps=1)
        again = deployment.client.submit_again(str(call.content), str(call.key))
    wire.replies_to_lose = 0
    assert wire.lost > lost
    assert again.job_id is not None
    deployment.succeed(again.job_id)
    deployment.audit()


@fault("F29")
def test_f29_a_worker_is_cut_off(run: Run) -> None:
    """It sees neither database nor broker and goes on computing, until it stops its runner before the lease ends."""
    with restartable_postgres() as server, wire_to(server) as (wire, url), ExitStack() as stack:
        deployment = stack.enter_context(deployed(workers=0, ledger_url=server.url()))
        far = deployment.start_worker(DFKD_DATABASE_URL=url)
        job_id = deployment.accepted(steps=80)
        deployment.until_step(job_id, run.random.randint(1, 20))
        runner = deployment.runner_of(far)
        deployment.start_worker()
        wire.silent = True
        cut_at = time.time()
        _wait_for_end(runner)
        ended_at = time.time()
        run.figure("runner ends after seconds", ended_at - cut_at)
        time.sleep(max(0.0, cut_at + 2 * LEASE_SECONDS - time.time()))
        wire.silent = False
        deployment.succeed(job_id)
        claims = [event.at for event in deployment.audit().jobs[job_id].events if event.kind == "claimed"]
        run.figure("overlap seconds", max(0.0, ended_at - claims[1]))
        assert len(claims) == 2
        assert ended_at <= claims[1]


def _wait_for_end(runner: psutil.Process) -> None:
    deadline = time.monotonic() + 2 * LEASE_SECONDS
    while not gone(runner):
        assert time.monotonic() < deadline
        time.sleep(0.01)
