"""Concurrent calls from threads and processes, on SQLite and on PostgreSQL."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing

from jobs.models import JobState
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import artifact_ref, submit
from tests.jobs.clockwork import expire_lease, lengthen_pauses
from tests.jobs.racers import race


def together(*works: Callable[[], None]) -> None:
    """Run all at the same moment, each in its thread; raise what one of them raised."""
    start = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_claim_each_job_exactly_once(store: Store) -> None:
    jobs = [submit(store).id for _ in range(24)]
    claimed: list[str] = []

    def work() -> None:
        while (claim := store.claim("me", 60, 1)) is not None:
            assert claim.fence == 1
            claimed.append(claim.job.id)

    together(*[work] * 6)
    assert Counter(claimed) == Counter(jobs)


def test_processes_claim_each_job_exactly_once(store: Store, ledger_settings: Settings) -> None:
    jobs = [submit(store).id for _ in range(30)]
    url = ledger_settings.resolved_database_url
    outputs = race("claims_all", url, number=3)
    claims = [tuple(claim) for output in outputs for claim in output]
    assert Counter(claims) == Counter((job_id, 1) for job_id in jobs)
    assert all(outputs)  # they did compete
    for job_id in jobs:
        assert [event.kind for event in store.events(job_id)][:2] == ["created", "claimed"]


def test_an_expired_lease_is_taken_back_by_one_sweep_only(store: Store, ledger_settings: Settings) -> None:
    jobs = [submit(store).id for _ in range(12)]
    for job_id in jobs:
        store.claim("me", 60, 1)
        expire_lease(store, job_id)
    expired: list[str] = []
    patient = ledger_settings.model_copy(update={"backoff_seconds": 60.0})
    with closing(open_store(patient)) as sweeper:
        together(*[lambda: expired.extend(sweeper.sweep().expired)] * 5)
    expired.extend(store.sweep().expired)  # a sweep skips what another one holds
    assert Counter(expired) == Counter(jobs)


def test_a_bell_is_rung_by_one_sweep_only(store: Store) -> None:
    jobs = [submit(store).id for _ in range(12)]
    for job_id in jobs:
        lengthen_pauses(store, job_id)
    rung: list[str] = []
    together(*[lambda: rung.extend(store.sweep().notify)] * 5)
    rung.extend(store.sweep().notify)
    assert Counter(rung) == Counter(jobs)


def test_success_and_cancel_race_and_exactly_one_wins(store: Store) -> None:
    outcomes = Counter[str]()
    for _ in range(10):
        job = submit(store)
        claim = store.claim("me", 60, 1)
        assert claim is not None
        published: list[bool] = []
        refused: list[bool] = []

        def succeed(job_id: str = job.id, published: list[bool] = published) -> None:
            published.append(store.succeed(job_id, 1, artifacts=[artifact_ref()]))

        def cancel(job_id: str = job.id, refused: list[bool] = refused) -> None:
            try:
                store.request_cancel(job_id)
            except Exception:
                refused.append(True)

        together(succeed, cancel)
        after = store.get(job.id)
        assert published == [bool(refused)]
        assert (after.state is JobState.SUCCEEDED, bool(after.artifacts)) == (published[0], published[0])
        outcomes[after.public_state] += 1
    assert set(outcomes) <= {"succeeded", "cancelling"}


def test_a_zombie_and_the_new_owner_write_at_once_and_only_one_counts(store: Store) -> None:
    job = submit(store)
    store.claim("zombie", 60, 1)
    expire_lease(store, job.id)
    store.sweep()
    store.claim("owner", 60, 1)
    accepted = Counter[int]()

    def write(fence: int) -> None:
        for step in range(15):
            accepted[fence] += store.record(job.id, fence, events=[("stage", {"step": step, "fence": fence})])

    together(lambda: write(1), lambda: write(2))
    events = store.events(job.id)
    assert accepted == {1: 0, 2: 15}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {event.data["fence"] for event in events if event.kind == "stage"} == {2}


def test_history_has_no_gaps_however_many_write_it(store: Store) -> None:
    job = submit(store)
    store.claim("me", 60, 1)
    together(*[lambda: [store.record(job.id, 1, events=[("a", {}), ("b", {})]) for _ in range(8)] and None] * 4)
    events = store.events(job.id, limit=1000)
    assert [event.seq for event in events] == list(range(1, 2 + 4 * 8 * 2 + 1))
    assert [event.kind for event in events[2:]] == ["a", "b"] * 32
