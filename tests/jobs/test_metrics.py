"""Metrics: statistics of the ledger, which are equal in every process, and counters of this process."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.broker import make_celery, notify
from jobs.devices import DeviceClass
from jobs.files.artifacts import ArtifactStore
from jobs.files.local import Directory
from jobs.garbage_collector import collect_garbage
from jobs.ledger.statistics import Queue
from jobs.metrics import REGISTRY
from jobs.models import SPEC_VERSION, JobError, JobState
from jobs.settings import Settings
from jobs.store import Store
from tests.builders import submit, submit_for
from tests.jobs.clockwork import age_spec, end_pauses, expire_lease

BOOM = JobError(code="internal", detail="boom")


def counted(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, "a counter is there from the beginning"
    return value


def test_an_empty_ledger_has_figures_too(store: Store) -> None:
    found = store.statistics(worker_seconds=60)
    assert found.jobs == dict.fromkeys(JobState, 0)
    queues = itertools.product(range(1, SPEC_VERSION + 1), DeviceClass)
    assert found.queues == dict.fromkeys(queues, Queue(depth=0, oldest_seconds=0.0))
    assert (found.crash_streak_max, found.events, found.workers, found.slots) == (0, {}, {}, {})


def test_figures_are_those_of_the_whole_ledger(store: Store) -> None:
    done, waiting, newer, due = (submit(store) for _ in range(4))
    store.request_cancel(done.id)
    claim = store.claim("me", 60, 1)
    assert claim is not None
    assert claim.job.id == waiting.id
    store.release(waiting.id, claim.fence, reason="died", charged=True, delay_seconds=60)
    age_spec(store, newer.id, "{}", version=SPEC_VERSION + 1)
    end_pauses(store, due.id)  # due for a second
    submit_for(store, "gpu")
    for worker, device in (("a", "cpu"), ("b", "cpu"), ("c", "cuda")):
        store.worker_seen(worker, host="here", slots=2, device=device)
    found = store.statistics(worker_seconds=60)
    assert (found.jobs[JobState.QUEUED], found.jobs[JobState.CANCELLED], found.crash_streak_max) == (4, 1, 1)
    depths = {queue: found.queues[queue].depth for queue in found.queues if found.queues[queue].depth}
    assert depths == {(1, "any"): 1, (2, "gpu"): 1, (SPEC_VERSION + 1, "any"): 1}
    assert 1.0 <= found.queues[1, DeviceClass.ANY].oldest_seconds < 30
    assert found.events == {"created": 5, "cancelled": 1, "claimed": 1, "released": 1}
    assert (found.workers, found.slots) == ({"cpu": 2, "cuda": 1}, {"cpu": 4, "cuda": 2})
    assert found.busy == {"cpu": 0, "cuda": 0}
    assert store.claim("c", 60, 1, DeviceClass.GPU) is not None
    assert store.statistics(worker_seconds=60).busy == {"cpu": 0, "cuda": 1}
    assert store.statistics(worker_seconds=-1).workers == {}


def test_only_a_lost_worker_makes_a_takeover(store: Store) -> None:
    job = submit(store)
    silences = []
    for lost in (True, False, False):
        claim = store.claim("me", 60, 1)
        assert claim is not None
        silences.append(claim.silent_seconds)
        if lost:
            expire_lease(store, job.id)
            assert store.sweep().expired == [job.id]
        else:
            store.release(job.id, claim.fence, reason="drained", charged=False)
    assert (silences[0], silences[2]) == (None, None)
    assert silences[1] is not None
    assert 0 <= silences[1] < 30


STALE: dict[str, Callable[[Store, str], object]] = {
    "heartbeat": lambda store, job_id: store.heartbeat(job_id, 7, 60),
    "record": lambda store, job_id: store.record(job_id, 7),
    "checkpoint": lambda store, job_id: store.record_checkpoint(job_id, 7, step=1, sha256="a" * 64, num_bytes=7),
    "succeed": lambda store, job_id: store.succeed(job_id, 7, artifacts=[]),
    "fail": lambda store, job_id: store.fail(job_id, 7, error=BOOM),
    "cancelled": lambda store, job_id: store.cancelled(job_id, 7),
    "release": lambda store, job_id: store.release(job_id, 7, reason="x", charged=False),
}


@pytest.mark.parametrize("kind", STALE)
def test_a_refused_write_of_a_stale_attempt_is_counted(store: Store, kind: str) -> None:
    job = submit(store)
    assert store.claim("me", 60, 1) is not None
    before = counted("dfkd_stale_write_refused_total", kind=kind)
    assert not STALE[kind](store, job.id)
    assert counted("dfkd_stale_write_refused_total", kind=kind) == before + 1


def test_a_write_that_a_cancel_refuses_is_not_stale(store: Store) -> None:
    job = submit(store)
    claim = store.claim("me", 60, 1)
    assert claim is not None
    before = [counted("dfkd_stale_write_refused_total", kind=kind) for kind in ("cancelled", "succeed")]
    assert not store.cancelled(job.id, claim.fence)  # nobody asked
    store.request_cancel(job.id)
    assert not store.succeed(job.id, claim.fence, artifacts=[])
    assert store.cancelled(job.id, claim.fence)
    assert [counted("dfkd_stale_write_refused_total", kind=kind) for kind in ("cancelled", "succeed")] == before


def test_an_expired_lease_is_counted_once_by_whoever_finds_it(store: Store) -> None:
    jobs = [submit(store) for _ in range(3)]
    for _ in jobs:
        store.claim("me", 60, 1)
    store.request_cancel(jobs[2].id)
    for job in jobs:
        expire_lease(store, job.id)
    before = [counted("dfkd_lease_expired_total", outcome=outcome) for outcome in ("expired", "failed", "cancelled")]
    store.sweep()
    store.sweep()
    after = [counted("dfkd_lease_expired_total", outcome=outcome) for outcome in ("expired", "failed", "cancelled")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 0, 1]


def test_a_bell_that_does_not_ring_is_counted_and_one_that_is_not_there_is_not(tmp_path: Path) -> None:
    before = counted("dfkd_doorbell_failures_total")
    assert not notify(make_celery(Settings(broker_url=None)), "x")
    assert counted("dfkd_doorbell_failures_total") == before
    assert not notify(make_celery(Settings(broker_url=f"redis+socket://{tmp_path}/none.sock?virtual_host=0")), "x")
    assert counted("dfkd_doorbell_failures_total") == before + 1


def test_the_janitor_counts_the_bytes_that_it_removed(store: Store, tmp_path: Path) -> None:
    artifacts = ArtifactStore(Directory(tmp_path / "artifacts"), temporary=tmp_path / "temporary")
    artifacts.receive([b"nobody needs this"], 100).commit()
    before = counted("dfkd_janitor_deleted_bytes_total")
    verbs = []
    for dry_run in (False, True, False, False):
        acts = collect_garbage(store, artifacts, retention_seconds=1e6, quarantine_seconds=0.0, dry_run=dry_run)
        verbs.append([act.verb for act in acts])
    assert verbs == [["quarantine"], ["delete"], ["delete"], []]
    assert counted("dfkd_janitor_deleted_bytes_total") == before + len(b"nobody needs this")
