"""Requests with a key, on SQLite and on PostgreSQL: a repeated request gets the stored answer."""

import threading
import uuid
from typing import Any

import pytest

from jobs.errors import JobNotFound, RequestInProgress
from jobs.lifecycle.idempotency import KeyLease, ResponseRecorder, StoredResponse
from jobs.models import JobState, JobWithPosition
from jobs.store import Store
from tests.builders import digest, job_spec, submit, teacher_ref
from tests.jobs.clockwork import age_request

FINGERPRINT = digest("what is asked")


def holder(key: str = "a key") -> KeyLease:
    return KeyLease(key, uuid.uuid4().hex)


def receipt(held: KeyLease | None) -> ResponseRecorder[Any]:
    return ResponseRecorder(lambda outcome: f"the answer: {outcome!r}"[:60], held, FINGERPRINT)


def create(store: Store, held: KeyLease | None) -> str:
    teacher, _ = store.put_teacher(teacher_ref())
    return store.create(str(uuid.uuid4()), job_spec(), teacher.id, receipt=receipt(held)).id


def test_an_answer_is_kept_with_what_it_tells(store: Store) -> None:
    ours = holder()
    assert store.keys.hold(ours, 60) is None
    told: list[JobWithPosition] = []

    def answer(standing: JobWithPosition) -> str:
        told.append(standing)
        return standing.job.id

    teacher, _ = store.put_teacher(teacher_ref())
    job = store.create(str(uuid.uuid4()), job_spec(), teacher.id, receipt=ResponseRecorder(answer, ours, FINGERPRINT))
    assert told == [(job, 1)]
    assert store.keys.hold(holder(), 60) == StoredResponse(FINGERPRINT, job.id)
    assert store.keys.hold(holder("another"), 60) is None


def test_a_key_that_is_held_is_not_given_twice(store: Store) -> None:
    assert store.keys.hold(holder(), 60) is None
    with pytest.raises(RequestInProgress) as caught:
        store.keys.hold(holder(), 60)
    assert 0 < caught.value.retry_after_seconds <= 60


def test_holding_again_with_the_same_token_is_no_conflict(store: Store) -> None:
    ours = holder()
    assert store.keys.hold(ours, 60) is None
    assert store.keys.hold(ours, 60) is None  # as after a commit whose reply was lost


def test_the_key_of_a_dead_process_is_free_after_its_lease_and_the_dead_can_do_nothing_more(store: Store) -> None:
    dead, heir = holder(), holder()
    assert store.keys.hold(dead, 60) is None
    age_request(store, dead.key, "lease_until")
    assert store.keys.hold(heir, 60) is None
    assert not store.keys.renew(dead, 60)
    with pytest.raises(RequestInProgress):
        create(store, dead)
    assert store.list(10).jobs == []  # the job went with its answer
    store.keys.let_go(dead)
    assert create(store, heir) == store.list(10).jobs[0].id


def test_a_renewed_lease_holds(store: Store) -> None:
    ours = holder()
    store.keys.hold(ours, 60)
    age_request(store, ours.key, "lease_until")
    assert store.keys.renew(ours, 60)
    with pytest.raises(RequestInProgress):
        store.keys.hold(holder(), 60)


def test_a_refused_request_leaves_its_key_free(store: Store) -> None:
    refused = holder()
    store.keys.hold(refused, 60)
    with pytest.raises(JobNotFound):
        store.request_cancel(str(uuid.uuid4()), receipt=receipt(refused))
    store.keys.let_go(refused)
    assert store.keys.hold(holder(), 60) is None


def test_letting_go_after_the_answer_changes_nothing(store: Store) -> None:
    ours = holder()
    store.keys.hold(ours, 60)
    create(store, ours)
    store.keys.let_go(ours)
    assert store.keys.hold(holder(), 60) is not None


def test_every_change_that_a_request_can_ask_for_keeps_its_answer(store: Store) -> None:
    job = submit(store)
    for number, act in enumerate(
        (
            lambda held: store.put_teacher(teacher_ref("another"), receipt=receipt(held)),
            lambda held: store.request_cancel(job.id, receipt=receipt(held)),
        )
    ):
        ours = holder(str(number))
        store.keys.hold(ours, 60)
        act(ours)
        assert store.keys.hold(holder(str(number)), 60) is not None
    assert store.get(job.id).state is JobState.CANCELLED


def test_answers_are_kept_for_a_day_and_then_forgotten(store: Store) -> None:
    fresh, old, swept = holder("fresh"), holder("old"), holder("swept")
    for held in (fresh, old, swept):
        store.keys.hold(held, 60)
        create(store, held)
    for held in (old, swept):
        age_request(store, held.key, "expires_at")
    assert store.keys.hold(holder("old"), 60) is None
    assert store.keys.forget_old() == 1
    assert store.keys.hold(holder("swept"), 60) is None
    assert store.keys.hold(holder("fresh"), 60) is not None


def test_many_at_once_get_one_key(store: Store) -> None:
    barrier, got = threading.Barrier(8), []

    def ask() -> None:
        ours = holder()
        barrier.wait()
        try:
            if store.keys.hold(ours, 60) is None:
                got.append(create(store, ours))
        except RequestInProgress:
            return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [job.id for job in store.list(10).jobs]
    assert len(got) == 1
