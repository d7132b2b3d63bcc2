"""Faults of clocks, on PostgreSQL: leases are in the database's time, waits in monotonic time."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.deployment import Deployment, deployed
from tests.chaos.fault import Run, fault
from tests.chaos.servers import PostgresServer, restartable_postgres

OFFSETS = ("+2h", "-2h", "+1d", "-1d")
INSTANTS = (
    "2028-02-28 23:59:57",
    "2028-02-29 23:59:57",
    "2026-12-31 23:59:57",
    "2027-03-28 00:59:57",
    "2038-01-19 03:14:04",
    "2100-02-28 23:59:57",
)
_PATH = f"{Path(__file__).parent / 'faked'}:{os.environ.get('PYTHONPATH', '')}"
_SETTINGS = ("DONT_FAKE_MONOTONIC=1", f"PYTHONPATH={_PATH}")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def faked(moment: str) -> tuple[str, ...]:
    """A command's wall clock is wrong; its monotonic clock is not. (`faketime` itself passes no signal on.)"""
    return ("/usr/bin/env", *_SETTINGS, "TZ=UTC", f"FAKETIME={moment}", f"LD_PRELOAD={_library()}")


def by_file(path: Path) -> tuple[str, ...]:
    """The clock of a command follows a file, which may change."""
    path.write_text("+0\n")
    path.chmod(0o644)
    words = ("FAKETIME_CACHE_DURATION=1", f"FAKETIME_TIMESTAMP_FILE={path}")
    return ("/usr/bin/env", *_SETTINGS, *words, f"LD_PRELOAD={_library()}")


def _library() -> str:
    """The library that `faketime` would load."""
    return next(str(path) for path in Path("/usr/lib").rglob("libfaketime.so.1"))


@pytest.fixture(scope="module")
def skewed(postgres: PostgresServer) -> Iterator[Deployment]:
    """An API and a worker whose clocks are right."""
    with deployed(workers=1, ledger_url=postgres.url()) as deployment:
        yield deployment


@fault("F50", needs=("faketime",))
def test_f50_a_worker_with_another_clock(skewed: Deployment, run: Run) -> None:
    worker = skewed.start_worker(wrapper=faked(OFFSETS[run.number % len(OFFSETS)]))
    job_ids = [skewed.accepted() for _ in range(2)]
    skewed.succeed(*job_ids)
    evidence = skewed.audit()
    claims = [sum(event.kind == "claimed" for event in evidence.jobs[job_id].events) for job_id in job_ids]
    run.figure("claims of a job", max(claims))
    assert claims == [1, 1]
    skewed.stop_worker(worker)


@fault("F51", needs=("faketime",))
def test_f51_the_clock_of_the_api_steps(tmp_path: Path, run: Run) -> None:
    with restartable_postgres() as server, deployed(workers=1, ledger_url=server.url()) as deployment:
        deployment.kill_api()
        clock = tmp_path / "clock"
        deployment.start_api(wrapper=by_file(clock))
        job_ids = [deployment.accepted()]
        deployment.until_step(job_ids[0], 5)
        clock.write_text(f"{OFFSETS[run.number % len(OFFSETS)]}\n")
        job_ids.append(deployment.accepted(steps=1))
        deployment.succeed(*job_ids)
        first, second = (deployment.audit(get_seconds=None).jobs[job_id].events[0].at for job_id in job_ids)
        assert 0 < second - first < 60  # the database's time


@fault("F52", needs=("faketime",))
def test_f52_the_clock_of_the_database_steps(run: Run) -> None:
    """All leases end at once: everything is taken over, and published once."""
    with ExitStack() as stack:
        server = stack.enter_context(restartable_postgres())
        server.crash()
        clock = server.directory / "clock"
        server.start(wrapper=by_file(clock))
        deployment = stack.enter_context(deployed(workers=2, ledger_url=server.url()))
        job_ids = [deployment.accepted() for _ in range(3)]
        deployment.until_step(job_ids[0], run.random.randint(2, 20))
        clock.write_text("+2h\n")
        deployment.succeed(*job_ids)
        deployment.audit(checkpoint_steps=None)


@fault("F53", cheap=True, needs=("faketime",))
def test_f53_instants_at_which_calendars_change(run: Run) -> None:
    """API and database pass such an instant while a job runs."""
    instant = faked(f"@{INSTANTS[run.number % len(INSTANTS)]}")
    with ExitStack() as stack:
        server = stack.enter_context(restartable_postgres())
        server.crash()
        server.start(wrapper=instant)
        deployment = stack.enter_context(deployed(workers=0, ledger_url=server.url()))
        deployment.kill_api()
        deployment.start_api(wrapper=instant)
        deployment.start_worker()
        job_id = deployment.accepted()
        deployment.succeed(job_id)
        deployment.audit(get_seconds=None, checkpoint_steps=None)  # reads and history are by different clocks
        job = deployment.client.http.get(f"/jobs/{job_id}").json()
        told = [job[name] for name in ("created_at", "updated_at", "started_at", "finished_at")]
        assert all(RFC3339.fullmatch(moment) for moment in told), told
        assert told[0] <= told[2] <= told[3]
