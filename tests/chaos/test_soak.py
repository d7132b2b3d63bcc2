"""Everything at once: jobs come in all the time, and every few seconds something else breaks."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psutil

from tests.chaos import science
from tests.chaos.deployment import Deployment, deployed
from tests.chaos.fault import Run, fault
from tests.chaos.history import Client
from tests.chaos.servers import PostgresServer, RedisServer, restartable_postgres, restartable_redis
from tests.chaos.table import TABLE, runs_of
from tests.patience import until

NUM_WORKERS = 2
PAUSES = (1.0, 4.0)  # seconds between two faults
MISHAPS = (science.NONE, science.NONE, science.NONE, science.SEGFAULT, science.EXIT)


class Nemesis:
    """Breaks things, one at a time, in the main thread; whatever it stops it starts again."""

    def __init__(self, deployment: Deployment, postgres: PostgresServer, redis: RedisServer, run: Run) -> None:
        self.deployment, self.postgres, self.redis = deployment, postgres, redis
        self.random = run.random
        self.struck: dict[str, int] = {}

    def strike(self) -> None:
        """One fault."""
        acts: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_runner,
            self.pause_worker,
            self.stop_worker,
            self.kill_redis,
            self.hang_redis,
            self.empty_redis,
            self.crash_postgres,
            self.hang_postgres,
            self.kill_api,
            self.cancel_some,
        ]
        act = self.random.choice(acts)
        self.struck[act.__name__] = self.struck.get(act.__name__, 0) + 1
        act()

    def kill_worker(self) -> None:
        self.deployment.kill_worker(self._worker())
        self.deployment.start_worker()

    def kill_runner(self) -> None:
        with suppress(AssertionError, psutil.Error):
            self.deployment.runner_of(seconds=0.5).kill()

    def pause_worker(self) -> None:
        worker = self._worker()
        worker.suspend()
        time.sleep(self.random.uniform(1.0, 6.0))
        worker.resume()

    def stop_worker(self) -> None:
        self.deployment.stop_worker(self._worker())
        self.deployment.start_worker()

    def kill_redis(self) -> None:
        self.redis.kill()
        time.sleep(self.random.uniform(0.0, 2.0))
        self.redis.start()

    def hang_redis(self) -> None:
        with self.redis.hung():
            time.sleep(self.random.uniform(0.5, 3.0))

    def empty_redis(self) -> None:
        with self.redis.client() as client:
            client.flushall()

    def crash_postgres(self) -> None:
        with self.deployment.history.fault():
            self.postgres.crash()
            time.sleep(self.random.uniform(0.0, 1.0))
            self.postgres.start()

    def hang_postgres(self) -> None:
        with self.deployment.history.fault(), self.postgres.hung():
            time.sleep(self.random.uniform(0.5, 5.0))

    def kill_api(self) -> None:
        self.deployment.kill_api()
        self.deployment.start_api()

    def cancel_some(self) -> None:
        jobs = [call.job_id for call in self.deployment.history.of("submit") if call.job_id is not None]
        for job_id in self.random.sample(jobs, min(2, len(jobs))):
            self.deployment.client.cancel(job_id)

    def _worker(self) -> psutil.Process:
        return psutil.Process(self.random.choice(self.deployment.workers).pid)


@fault("F80", share=1 / TABLE["F80"].plan)
def test_f80_soak(run: Run) -> None:
    num_jobs = runs_of("F80", cheap=False)
    with ExitStack() as stack:
        postgres = stack.enter_context(restartable_postgres())
        redis = stack.enter_context(restartable_redis())
        deployment = stack.enter_context(
            deployed(workers=NUM_WORKERS, ledger_url=postgres.url(), redis_socket=redis.socket)
        )
        nemesis = Nemesis(deployment, postgres, redis, run)
        clients = threading.Thread(target=_submit, args=(deployment, num_jobs, run))
        clients.start()
        while clients.is_alive() or len(deployment.live_jobs()) > NUM_WORKERS:
            time.sleep(run.random.uniform(*PAUSES))
            nemesis.strike()
        deployment.client.settle()
        until(lambda: not deployment.live_jobs(), seconds=120.0)
        evidence = deployment.audit(checkpoint_steps=None, get_seconds=None)
        states = [row.state for row in evidence.jobs.values()]
        run.figure("jobs", len(states))
        run.figure("faults", sum(nemesis.struck.values()))
        run.figure("claims of one job", max(row.fence for row in evidence.jobs.values()))
        run.figure("POST p99 seconds", deployment.history.slowest("submit"))
        assert states.count("failed") == 0, [row.error for row in evidence.jobs.values()]


def _submit(deployment: Deployment, count: int, run: Run) -> None:
    client = Client(deployment.url, deployment.history)
    for number in range(count):
        deployment.submit(seed=MISHAPS[number % len(MISHAPS)], steps=15 + number % 25, client=client)
        until(lambda: _few_are_waiting(deployment), seconds=300.0)
    client.close()


def _few_are_waiting(deployment: Deployment) -> bool:
    """So that the jobs last as long as the faults do."""
    try:
        return len(deployment.live_jobs()) < 3 * NUM_WORKERS
    except Exception:
        return False  # the database is away
