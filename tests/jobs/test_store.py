"""The caller's side of the ledger, on SQLite and on PostgreSQL."""

import json
import uuid
from datetime import UTC, timedelta

import pytest
from sqlalchemy import text

from dfkd_core.notice import Notice
from jobs.errors import BadCursor, InvalidTransition, JobNotFound, TeacherNotFound
from jobs.models import ArtifactRef, Event, Job, JobError, JobSpec, JobState, UnreadableSpec
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import artifact_ref, digest, job_spec, submit, teacher_ref
from tests.jobs.clockwork import age_spec
from tests.patience import PATIENCE

HOSTILE_IDS = ["", "no-such-job", "a\x00b", "\ud800", "' OR 1=1 --", "x" * 10_000, "é"]


def kinds(store: Store, job: Job) -> list[str]:
    return [event.kind for event in store.events(job.id)]


def test_a_job_comes_back_as_it_was_accepted(store: Store) -> None:
    teacher, _ = store.put_teacher(teacher_ref())
    spec = JobSpec.model_validate_json(
        json.dumps(
            {
                "name": "größer",
                "student": {"architecture": "resnet8", "options": {"k": [1e-300, 2**53, "\u0000"]}},
                "distillation": {"seed": 2**63 - 1, "memory": "reservoir"},
                "teacher": {"input": {"shape": [1, 32, 32], "mean": [0.1307], "std": [0.3081]}},
            }
        )
    )
    warning = Notice(code="input-range-unknown", detail="d", hint="h")
    created = store.create(str(uuid.uuid4()), spec, teacher.id, [warning])
    assert store.get(created.id) == created
    assert (created.spec, created.warnings, created.teacher) == (spec, [warning], teacher)
    assert (created.state, created.attempt, created.fence, created.progress.stage) == ("queued", 0, 0, "queued")


def test_a_job_with_the_spec_of_another_version_is_shown_cancelled_and_deleted(store: Store) -> None:
    job = submit(store, team="vision")
    stored = {"name": "old", "labels": {"team": "vision", "n": 3}, "student": "lenet", "new": [1.5, None]}
    age_spec(store, job.id, json.dumps(stored))
    shown = store.get(job.id)
    assert isinstance(shown.spec, UnreadableSpec)
    assert (shown.spec.root, shown.spec.name, shown.spec.labels) == (stored, "old", {"team": "vision"})
    assert shown == job.model_copy(update={"spec": shown.spec})
    assert store.list(5).jobs == store.list(5, labels={"team": "vision"}).jobs == [shown]
    assert kinds(store, job) == ["created"]
    assert store.get_with_position(job.id).queue_position == 1
    cancelled = store.request_cancel(job.id)
    assert (cancelled.state, cancelled.spec) == (JobState.CANCELLED, shown.spec)
    store.delete(job.id)
    assert store.list(5).jobs == []


def test_a_stored_spec_that_is_no_json_is_shown_as_text(store: Store) -> None:
    job = submit(store)
    age_spec(store, job.id, "{torn")
    spec = store.get(job.id).spec
    assert isinstance(spec, UnreadableSpec)
    assert (spec.root, spec.name, spec.labels) == ({"text": "{torn"}, None, {})


def test_a_job_starts_with_one_event(store: Store) -> None:
    job = submit(store)
    (event,) = store.events(job.id)
    assert event == Event(seq=1, job_id=job.id, kind="created", fence=0, at=event.at, data={})


def test_times_are_aware_and_utc(store: Store) -> None:
    job = submit(store)
    for moment in (job.created_at, job.updated_at, job.teacher.created_at, store.events(job.id)[0].at):
        assert moment.tzinfo is UTC
    assert timedelta(0) <= job.updated_at - job.teacher.created_at < timedelta(seconds=PATIENCE)


def test_a_job_without_its_teacher_is_refused_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(TeacherNotFound):
        store.create(str(uuid.uuid4()), job_spec(), digest("nobody"))
    assert store.list(10).jobs == []


def test_the_same_teacher_is_kept_once(store: Store) -> None:
    first, new = store.put_teacher(teacher_ref())
    second, again = store.put_teacher(teacher_ref().model_copy(update={"format": "safetensors"}))
    assert (new, again) == (True, False)
    assert first == second == store.get_teacher(first.id)


def test_an_id_that_is_none_is_not_found(store: Store) -> None:
    for job_id in HOSTILE_IDS:
        for ask in (store.get, store.request_cancel, store.delete, store.events, store.get_with_position):
            with pytest.raises(JobNotFound):
                ask(job_id)
        with pytest.raises(TeacherNotFound):
            store.get_teacher(job_id)


def test_pages_are_newest_first_and_complete(store: Store) -> None:
    ids = [submit(store).id for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = store.list(3, cursor)
        seen += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_a_full_last_page_has_no_cursor(store: Store) -> None:
    for _ in range(4):
        submit(store)
    assert store.list(2, store.list(2).next_cursor).next_cursor is None


def test_jobs_that_arrive_or_go_between_two_pages_shift_nothing(store: Store) -> None:
    ids = [submit(store).id for _ in range(6)]
    first = store.list(2)
    submit(store)
    store.request_cancel(ids[4])
    store.delete(ids[4])  # the job that the cursor names
    second = store.list(10, first.next_cursor)
    assert [job.id for job in first.jobs + second.jobs] == ids[::-1]


FOREIGN_CURSORS = ["", "x", "é", "\ud800", "bg", "LTE", "bi0x", "bjk5OTk5OTk5OTk5OTk5OTk5OTk5OQ", "A" * 5000]


def test_a_foreign_cursor_is_refused(store: Store) -> None:
    for cursor in FOREIGN_CURSORS:
        with pytest.raises(BadCursor):
            store.list(1, cursor)
    assert store.list(1, "bjE=").jobs == []  # one of ours, with padding


def test_the_list_filters_by_state_and_every_label(store: Store) -> None:
    both = submit(store, team="vision", stage="dev")
    team = submit(store, team="vision")
    submit(store, team="speech", stage="dev")
    done = submit(store, team="vision", stage="dev")
    store.request_cancel(done.id)

    def found(labels: dict[str, str], states: list[JobState] | None = None) -> list[str]:
        return [job.id for job in store.list(10, labels=labels, states=states).jobs]

    assert found({"team": "vision"}) == [done.id, team.id, both.id]
    assert found({"team": "vision", "stage": "dev"}) == [done.id, both.id]
    assert found({"team": "vision", "stage": "dev"}, [JobState.QUEUED]) == [both.id]
    assert found({"team": "vision"}, [JobState.QUEUED, JobState.CANCELLED]) == [done.id, team.id, both.id]
    assert found({"team": "vision", "stage": "prod"}) == found({"team": "\x00"}) == found({"\ud800": "x"}) == []
    assert found({}, []) == []


def test_a_filtered_list_has_pages_too(store: Store) -> None:
    wanted = []
    for number in range(9):
        job = submit(store, parity="even" if number % 2 == 0 else "odd")
        wanted += [job.id] if number % 2 == 0 else []
    first = store.list(3, labels={"parity": "even"})
    second = store.list(3, first.next_cursor, labels={"parity": "even"})
    assert [job.id for job in first.jobs + second.jobs] == wanted[::-1]


def test_the_filters_use_the_indexes(store: Store) -> None:
    sqlite = store._database.dialect == "sqlite"
    explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
    queries = {
        "SELECT job_number FROM labels WHERE key = 'a' AND value = 'b'": "labels_by_value",
        "SELECT number FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1": "jobs_by_state",
        "SELECT 1 FROM artifacts WHERE sha256 = 'a'": "ix_artifacts_sha256",
        "SELECT 1 FROM jobs WHERE checkpoint_sha256 = 'a'": "ix_jobs_checkpoint_sha256",
    }
    for query, index in queries.items():
        with store._database.connected(writes=False) as connection:
            if not sqlite:
                connection.execute(text("SET enable_seqscan = off"))  # the tables are empty
            plan = str(connection.execute(text(explain + query)).all())
        assert index in plan


def test_events_come_in_order_after_the_last_one_seen(store: Store) -> None:
    job = submit(store)
    store.claim("w", 60, 1)
    store.record(job.id, 1, events=[("stage", {"n": number}) for number in range(5)])
    every = store.events(job.id)
    assert [event.seq for event in every] == [1, 2, 3, 4, 5, 6, 7]
    assert list(store.events(job.id, after=3, limit=2)) == list(every)[3:5]
    assert store.events(job.id, after=7) == []


def test_what_json_cannot_say_becomes_null_in_history(store: Store) -> None:
    job = submit(store)
    store.claim("w", 60, 1)
    store.record(job.id, 1, events=[("progress", {"loss": float("nan"), "text": "a\x00b"})])
    assert store.events(job.id)[-1].data == {"loss": None, "text": "a\x00b"}


def test_a_queued_job_is_cancelled_at_once(store: Store) -> None:
    job = submit(store)
    cancelled = store.request_cancel(job.id)
    assert (cancelled.state, cancelled.finished_at is not None) == (JobState.CANCELLED, True)
    assert store.claim("w", 60, 1) is None
    assert kinds(store, job) == ["created", "cancelled"]


def test_a_second_cancel_changes_nothing(store: Store) -> None:
    queued, running = submit(store), submit(store)
    cancelled = store.request_cancel(queued.id)
    assert store.request_cancel(queued.id) == cancelled
    store.claim("w", 60, 1)
    cancelling = store.request_cancel(running.id)
    assert (cancelling.public_state, cancelling.state) == ("cancelling", "running")
    assert store.request_cancel(running.id) == cancelling


def test_what_has_ended_otherwise_cannot_be_cancelled(store: Store) -> None:
    succeeded, failed = submit(store), submit(store)
    store.claim("w", 60, 1)
    store.claim("w", 60, 1)
    store.succeed(succeeded.id, 1, artifacts=[])
    store.fail(failed.id, 1, error=JobError(code="internal", detail="d"))
    for job in (succeeded, failed):
        before = store.get(job.id)
        with pytest.raises(InvalidTransition) as caught:
            store.request_cancel(job.id)
        assert caught.value.state is before.state
        assert store.get(job.id) == before


def test_only_what_has_ended_is_deleted(store: Store) -> None:
    queued, running = submit(store), submit(store)
    store.claim("w", 60, 1)
    for job in (queued, running):
        with pytest.raises(InvalidTransition):
            store.delete(job.id)
    store.request_cancel(running.id)
    store.delete(running.id)
    with pytest.raises(JobNotFound):
        store.get(running.id)
    assert [job.id for job in store.list(10).jobs] == [queued.id]


def test_deleting_a_job_names_only_the_files_that_nobody_else_needs(store: Store) -> None:
    first, second = submit(store), submit(store)
    for job in (first, second):
        store.claim("w", 60, 1)
        store.record_checkpoint(job.id, 1, step=1, sha256=digest("shared checkpoint"), num_bytes=7)
        store.record_checkpoint(job.id, 1, step=2, sha256=digest(f"checkpoint of {job.id}"), num_bytes=7)
        files = [artifact_ref(word="shared student"), artifact_ref("report.json", f"report of {job.id}")]
        files.append(ArtifactRef(name="x", sha256=first.teacher.id, bytes=1, media_type="x"))
        assert store.succeed(job.id, 1, artifacts=files)
    own = {digest(f"checkpoint of {first.id}"), digest(f"report of {first.id}")}
    assert set(store.delete(first.id).files) == own
    assert not any(map(store.referenced, own))
    shared = {digest("shared checkpoint"), digest("shared student")}
    assert all(map(store.referenced, {*shared, first.teacher.id}))
    assert shared < set(store.delete(second.id).files)
    assert store.referenced(first.teacher.id)
    assert not any(map(store.referenced, shared))


def test_the_queue_is_counted_by_state_and_position(store: Store) -> None:
    jobs = [submit(store) for _ in range(4)]
    store.claim("w", 60, 1)
    store.request_cancel(jobs[1].id)
    depth = store.statistics(worker_seconds=60.0).jobs
    assert {state: depth[state] for state in depth if depth[state]} == {"queued": 2, "running": 1, "cancelled": 1}
    assert set(depth) == set(JobState)
    assert [store.get_with_position(job.id).queue_position for job in jobs] == [None, None, 1, 2]


def test_what_is_written_is_there_after_a_restart(ledger_settings: Settings, store: Store) -> None:
    job = submit(store, team="vision")
    again = open_store(ledger_settings)
    assert again.get(job.id) == job
    again.close()


def test_workers_are_known_by_their_heartbeat(store: Store) -> None:
    store.worker_seen("a", host="box", slots=2, device="cpu")
    store.worker_seen("b", host="box", slots=1, device="cuda:0")
    store.worker_seen("a", host="box", slots=2, device="cpu")
    first, second = store.live_workers(max_age_seconds=PATIENCE)
    assert (first.id, first.slots, second.device) == ("a", 2, "cuda:0")
    assert first.seen_at >= first.started_at
    assert store.live_workers(max_age_seconds=-1) == []
    store.worker_gone("a")
    assert [worker.id for worker in store.live_workers(max_age_seconds=PATIENCE)] == ["b"]
