"""Every log line that a worker writes about a job names the job, the attempt and the trace."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from jobs.log_context import AboutFilter
from jobs.models import Job, JobState
from tests.builders import job_spec
from tests.patience import until
from tests.worker.conftest import Bench
from tests.worker.test_slots import open_pool

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_OF_A_JOB = {"round cut short: the ledger does not answer", "the tables were changed"}


class Kept(logging.Handler):
    """Keeps the log records of worker and ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(AboutFilter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("worker.", "jobs.")):
            self.records.append(record)

    def about_jobs(self) -> list[logging.LogRecord]:
        return [record for record in self.records if record.getMessage() not in NOT_OF_A_JOB]


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, root = Kept(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


def traced(bench: Bench) -> Job:
    known = bench.submit()
    bench.store.request_cancel(known.id)
    return bench.store.create("5c1a8e0e-64cf-4c0b-9d0e-3b0f4f1f0c55", job_spec(), known.teacher.id, traceparent=TRACE)


def test_a_crash_and_a_second_attempt(bench: Bench, kept: Kept) -> None:
    job = traced(bench)
    with open_pool(bench, "crash"):
        until(lambda: bench.store.get(job.id).state is JobState.SUCCEEDED)
    lines = [(vars(line)["job_id"], vars(line)["traceparent"]) for line in kept.about_jobs()]
    assert set(lines) == {(job.id, TRACE)}
    attempts = [(vars(line)["attempt"], line.getMessage()) for line in kept.about_jobs()]
    assert attempts[0] == (1, "job claimed")
    assert {(1, "runner started"), (1, "runner crashed"), (2, "job claimed"), (2, "runner started")} <= set(attempts)


def test_a_ledger_that_does_not_answer(bench: Bench, kept: Kept) -> None:
    job = traced(bench)
    with open_pool(bench, "endless"), closing(sqlite3.connect(bench.settings.data_dir / "ledger.sqlite3")) as file:
        until(lambda: bench.store.get(job.id).progress.step > 0)
        file.execute("ALTER TABLE jobs RENAME TO elsewhere")
        until(lambda: {"heartbeat failed", "ledger write failed"} <= {line.getMessage() for line in kept.records})
        file.execute("ALTER TABLE elsewhere RENAME TO jobs")
    assert {(vars(line)["job_id"], vars(line)["attempt"]) for line in kept.about_jobs()} == {(job.id, 1)}


def test_a_lease_that_expired(bench: Bench, kept: Kept) -> None:
    job = bench.submit()
    assert bench.store.claim("dead", 0.05, 1) is not None
    until(lambda: bench.store.sweep().expired)
    (line,) = (line for line in kept.records if line.getMessage() == "a worker was lost")
    assert (vars(line)["job_id"], vars(line)["attempt"], vars(line)["now"]) == (job.id, 1, "queued again")
