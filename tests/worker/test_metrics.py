"""What a worker counts about its attempts, and the port that Prometheus reads."""

import socket
import urllib.request

import psutil
import pytest

from jobs.metrics import REGISTRY
from jobs.models import JobState, Progress
from jobs.settings import Settings
from tests.jobs.clockwork import expire_lease
from tests.patience import PATIENCE, scaled, until
from tests.worker.conftest import Bench, finished
from tests.worker.test_slots import open_pool
from worker.metrics import AttemptOutcome, serve


def endings() -> dict[str, float]:
    return {
        kind.value: REGISTRY.get_sample_value("dfkd_attempt_endings_total", {"class": kind.value})
        for kind in AttemptOutcome
    }


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


ACTS = {
    "done": "published",
    "poison": "crash",
    "diverge": "error",
    "exhausted": "out-of-memory",
    "full_disk": "storage-full",
    "incomplete": "files-refused",
}


@pytest.mark.parametrize("act", ACTS)
def test_an_attempt_is_counted_once_by_how_it_ended(bench: Bench, act: str) -> None:
    bench.submit()
    before = endings()
    bench.attempt(act)
    assert {kind for kind, count in endings().items() if count != before[kind]} == {ACTS[act]}
    assert sum(endings().values()) == sum(before.values()) + 1


def test_cancelled_drained_and_stalled_attempts_are_told_apart(bench: Bench) -> None:
    before = endings()
    bench.submit()
    job, thread = bench.start("endless")
    until(lambda: bench.store.get(job.id).progress.step > 0)
    bench.store.request_cancel(job.id)
    finished(thread)
    bench.submit()
    bench.attempt("hung", stall_seconds=scaled(0.5))
    bench.submit()
    bench.draining.set()
    bench.attempt("endless")
    changed = {kind: count - before[kind] for kind, count in endings().items() if count != before[kind]}
    assert changed == {"cancelled": 1, "stalled": 1, "drained": 1}


def test_an_attempt_that_lost_its_job_is_fenced_out(bench: Bench) -> None:
    before = endings()
    bench.submit()
    job, thread = bench.start("endless")
    until(lambda: bench.store.get(job.id).progress.step > 0)

    def taken_away() -> bool:
        expire_lease(bench.store, job.id)
        return bench.store.sweep().expired == [job.id]

    until(taken_away)  # a heartbeat may come between the two
    finished(thread)
    assert endings()["fenced-out"] == before["fenced-out"] + 1


def test_a_runner_without_a_confirmed_lease_is_self_fenced(bench: Bench) -> None:
    bench.submit()
    before, fenced = endings(), counted("dfkd_self_fenced_total")
    bench.shorten_leases(3.0)
    job, thread = bench.start("endless", heartbeat_seconds=PATIENCE)
    finished(thread)
    assert bench.store.get(job.id).state is JobState.QUEUED
    assert endings()["self-fenced"] == before["self-fenced"] + 1
    assert counted("dfkd_self_fenced_total") == fenced + 1


@pytest.mark.parametrize(("there", "lost"), [(True, 12), (False, 42)])
def test_a_takeover_and_the_steps_that_it_lost_are_counted(bench: Bench, there: bool, lost: int) -> None:
    job = bench.submit()
    sha256, _ = bench.artifacts.receive([b"15"], 10).commit()
    claim = bench.store.claim("dead", 60, 1)
    assert claim is not None
    bench.store.record_checkpoint(job.id, claim.fence, step=30, sha256=sha256 if there else "a" * 64, num_bytes=7)
    bench.store.record(job.id, claim.fence, progress=Progress(stage="distill", step=42, total_steps=100))
    expire_lease(bench.store, job.id)
    names = ("dfkd_takeover_seconds_count", "dfkd_wasted_steps_total")
    before = [counted(name) for name in names]
    with open_pool(bench, "done"):
        until(lambda: bench.store.get(job.id).state is JobState.SUCCEEDED)
    assert [counted(name) - old for name, old in zip(names, before, strict=True)] == [1, lost]


def test_the_port_answers_on_loopback_only(bench: Bench) -> None:
    port = serve(Settings(worker_metrics_port=0))
    assert port is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    assert 'dfkd_attempt_endings_total{class="crash"}' in text
    assert "dfkd_process_resident_memory_bytes" in text
    listening = [at.laddr.ip for at in psutil.Process().net_connections("tcp") if at.laddr.port == port]
    assert listening[:1] == ["127.0.0.1"]


def test_without_a_port_nothing_listens_and_a_taken_one_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert serve(Settings()) is None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve(Settings(worker_metrics_port=taken.getsockname()[1])) is None
    assert "the metrics cannot be served" in caplog.text
