"""Requests with a key, on SQLite and on PostgreSQL: one is carried out, and a repetition finds its outcome."""

import json
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from jobs.errors import JobNotFound, RequestInProgress
from jobs.lifecycle.idempotency import JOB_OUTCOME, TEACHER_OUTCOME, KeyLease, OutcomeRecorder, StoredOutcome
from jobs.models import JobState, JobWithPosition
from jobs.store import Store
from tests.builders import digest, job_spec, submit, teacher_ref
from tests.jobs.clockwork import age_request

FINGERPRINT = digest("what is asked")


def holder(key: str = "a key") -> KeyLease:
    return KeyLease(key, uuid.uuid4().hex)


def recorder(lease: KeyLease | None, note: Mapping[str, Any] | None = None) -> OutcomeRecorder[Any]:
    return OutcomeRecorder(lease, FINGERPRINT, note or {})


def stored(store: Store, key: str = "a key") -> dict[str, Any]:
    """What another request with the key finds."""
    found = store.keys.acquire(holder(key), 60)
    assert isinstance(found, StoredOutcome)
    assert found.fingerprint == FINGERPRINT
    read: dict[str, Any] = json.loads(found.text)
    return read


def create(store: Store, lease: KeyLease | None) -> str:
    teacher, _ = store.put_teacher(teacher_ref())
    return store.create(str(uuid.uuid4()), job_spec(), teacher.id, recorder=recorder(lease)).id


def test_an_answer_is_kept_with_what_it_tells(store: Store) -> None:
    ours = holder()
    assert store.keys.acquire(ours, 60) is None
    recording = recorder(ours, {"a note": [1]})
    teacher, _ = store.put_teacher(teacher_ref())
    job = store.create(str(uuid.uuid4()), job_spec(), teacher.id, recorder=recording)
    assert recording.outcome == JobWithPosition(job, 1)
    read = stored(store)
    assert read.keys() == {"a note", "outcome"}
    assert read["a note"] == [1]
    assert JOB_OUTCOME.validate_json(json.dumps(read["outcome"])) == recording.outcome
    assert store.keys.acquire(holder("another"), 60) is None


def test_a_key_that_is_held_is_not_given_twice(store: Store) -> None:
    assert store.keys.acquire(holder(), 60) is None
    with pytest.raises(RequestInProgress) as caught:
        store.keys.acquire(holder(), 60)
    assert 0 < caught.value.retry_after_seconds <= 60


def test_holding_again_with_the_same_token_is_no_conflict(store: Store) -> None:
    ours = holder()
    assert store.keys.acquire(ours, 60) is None
    assert store.keys.acquire(ours, 60) is None  # as after a commit whose reply was lost


def test_the_key_of_a_dead_process_is_free_after_its_lease_and_the_dead_can_do_nothing_more(store: Store) -> None:
    dead, heir = holder(), holder()
    assert store.keys.acquire(dead, 60) is None
    age_request(store, dead.key, "lease_until")
    assert store.keys.acquire(heir, 60) is None
    assert not store.keys.renew(dead, 60)
    with pytest.raises(RequestInProgress):
        create(store, dead)
    assert store.list(10).jobs == []  # the job went with its answer
    store.keys.release(dead)
    assert create(store, heir) == store.list(10).jobs[0].id


def test_a_renewed_lease_holds(store: Store) -> None:
    ours = holder()
    store.keys.acquire(ours, 60)
    age_request(store, ours.key, "lease_until")
    assert store.keys.renew(ours, 60)
    with pytest.raises(RequestInProgress):
        store.keys.acquire(holder(), 60)


def test_a_refused_request_leaves_its_key_free(store: Store) -> None:
    refused = holder()
    store.keys.acquire(refused, 60)
    with pytest.raises(JobNotFound):
        store.request_cancel(str(uuid.uuid4()), recorder=recorder(refused))
    store.keys.release(refused)
    assert store.keys.acquire(holder(), 60) is None


def test_letting_go_after_the_answer_changes_nothing(store: Store) -> None:
    ours = holder()
    store.keys.acquire(ours, 60)
    create(store, ours)
    store.keys.release(ours)
    assert store.keys.acquire(holder(), 60) is not None


def test_every_change_that_a_request_can_ask_for_keeps_its_answer(store: Store) -> None:
    job = submit(store)
    for number, act in enumerate(
        (
            lambda recording: store.put_teacher(teacher_ref("another"), recorder=recording),
            lambda recording: store.request_cancel(job.id, recorder=recording),
        )
    ):
        ours = holder(str(number))
        store.keys.acquire(ours, 60)
        recording = recorder(ours)
        act(recording)
        kind: TypeAdapter[Any] = (TEACHER_OUTCOME, JOB_OUTCOME)[number]
        assert kind.validate_json(json.dumps(stored(store, str(number))["outcome"])) == recording.outcome
    assert store.get(job.id).state is JobState.CANCELLED


def test_answers_are_kept_for_a_day_and_then_forgotten(store: Store) -> None:
    fresh, old, swept = holder("fresh"), holder("old"), holder("swept")
    for lease in (fresh, old, swept):
        store.keys.acquire(lease, 60)
        create(store, lease)
    for lease in (old, swept):
        age_request(store, lease.key, "expires_at")
    assert store.keys.acquire(holder("old"), 60) is None
    assert store.keys.delete_expired() == 1
    assert store.keys.acquire(holder("swept"), 60) is None
    assert store.keys.acquire(holder("fresh"), 60) is not None


def test_many_at_once_get_one_key(store: Store) -> None:
    barrier, got = threading.Barrier(8), []

    def ask() -> None:
        ours = holder()
        barrier.wait()
        try:
            if store.keys.acquire(ours, 60) is None:
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
