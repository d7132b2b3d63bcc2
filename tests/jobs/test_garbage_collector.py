"""Garbage collection: retention periods, and the day of quarantine; with files in a directory and in a bucket."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from jobs.db.db_time import DAY_SECONDS
from jobs.files.artifacts import ArtifactStore, open_artifacts
from jobs.garbage_collector import GcAction, collect_garbage
from jobs.models import ArtifactRef, Job, JobState
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import digest, submit
from tests.jobs.clockwork import age_end
from tests.stored import content

T = TypeVar("T")

MONTH_SECONDS = 30 * DAY_SECONDS


@pytest.fixture
def artifacts(ledger_settings: Settings, artifact_settings: dict[str, str]) -> ArtifactStore:
    return open_artifacts(ledger_settings.model_copy(update=artifact_settings))


def keep(artifacts: ArtifactStore, word: str) -> str:
    sha256, _ = artifacts.receive([word.encode()], len(word)).commit()
    return sha256


def finish(store: Store, artifacts: ArtifactStore, word: str) -> Job:
    """A job with two checkpoints and one file, all of whose bytes are there."""
    keep(artifacts, "teacher")
    job = submit(store)
    assert store.claim("me", 60, 1)
    for step in (1, 2, 3):
        store.record_checkpoint(job.id, 1, step=step, sha256=keep(artifacts, f"{word} {step}"), num_bytes=7)
    artifacts.delete(digest(f"{word} 1"))
    ref = ArtifactRef(name="student.onnx", sha256=keep(artifacts, word), bytes=len(word), media_type="x/y")
    assert store.succeed(job.id, 1, artifacts=[ref])
    return store.get(job.id)


def tidy(store: Store, artifacts: ArtifactStore, *, hours: float, dry_run: bool = False) -> list[GcAction]:
    """One round; what has been in quarantine for less than `hours` stays."""
    return collect_garbage(
        store, artifacts, retention_seconds=MONTH_SECONDS, quarantine_seconds=hours * 3600, dry_run=dry_run
    )


def told(acts: list[GcAction]) -> set[tuple[str, str]]:
    return {(act.verb, act.what) for act in acts}


def test_a_file_that_no_row_refers_to_is_left_for_a_day(store: Store, artifacts: ArtifactStore) -> None:
    needed, orphan = keep(artifacts, "teacher"), keep(artifacts, "orphan")
    submit(store)
    assert told(tidy(store, artifacts, hours=24)) == {("quarantine", orphan)}
    assert tidy(store, artifacts, hours=24) == []
    assert set(artifacts.digests()) == {needed, orphan}
    (deleted,) = tidy(store, artifacts, hours=0)
    assert (deleted.verb, deleted.what, deleted.num_bytes) == ("delete", orphan, len("orphan"))
    assert list(artifacts.digests()) == [needed]
    assert tidy(store, artifacts, hours=0) == []


def test_however_old_a_file_is_the_day_begins_when_it_is_found(store: Store, ledger_settings: Settings) -> None:
    artifacts = open_artifacts(ledger_settings)
    orphan = keep(artifacts, "orphan")
    for path in (ledger_settings.data_dir / "artifacts" / "blobs").glob("??/*"):
        os.utime(path, (0, 0))
    assert told(tidy(store, artifacts, hours=24)) == {("quarantine", orphan)}
    assert artifacts.exists(orphan)
    os.utime(ledger_settings.data_dir / "artifacts" / "quarantine" / orphan, (0, 0))
    assert told(tidy(store, artifacts, hours=24)) == {("delete", orphan)}


def test_a_dry_run_says_the_same_and_changes_nothing(store: Store, artifacts: ArtifactStore) -> None:
    job = finish(store, artifacts, "student")
    orphan = keep(artifacts, "orphan")
    with artifacts.begin(10) as half:
        plan = tidy(store, artifacts, hours=-1, dry_run=True)
        assert told(plan) == {("expire", job.id), ("quarantine", orphan), ("delete", half.path.name)}
        assert tidy(store, artifacts, hours=-1, dry_run=True) == plan
        assert half.path.exists()
    assert told(tidy(store, artifacts, hours=24)) == {
        ("expire", job.id),
        ("quarantine", orphan),
        ("quarantine", digest("student 2")),
    }


def test_a_finished_job_keeps_its_last_checkpoint_and_its_files_for_the_retention_period(
    store: Store, artifacts: ArtifactStore
) -> None:
    job = finish(store, artifacts, "student")
    assert store.references() == {digest(word) for word in ("teacher", "student", "student 2", "student 3")}
    tidy(store, artifacts, hours=24)
    assert store.references() == {digest(word) for word in ("teacher", "student", "student 3")}
    assert store.get(job.id).artifacts == job.artifacts
    age_end(store, job.id, MONTH_SECONDS)
    tidy(store, artifacts, hours=24)
    assert store.references() == {digest("teacher")}
    assert (store.get(job.id).state, store.get(job.id).artifacts) == (JobState.SUCCEEDED, [])
    assert store.events(job.id)[-1].kind == "expired"
    tidy(store, artifacts, hours=0)
    assert list(artifacts.digests()) == [digest("teacher")]
    assert tidy(store, artifacts, hours=0) == []


def test_a_checkpoint_expires_before_the_files_of_its_job(store: Store, artifacts: ArtifactStore) -> None:
    job = finish(store, artifacts, "student")

    def tidied() -> list[tuple[str, str]]:
        acts = collect_garbage(
            store, artifacts, retention_seconds=MONTH_SECONDS, checkpoint_retention_seconds=7 * DAY_SECONDS
        )
        return [(act.what, act.why) for act in acts if act.verb == "expire"]

    assert tidied() == [(job.id, "finished: its checkpoint before the last")]
    assert tidied() == []
    age_end(store, job.id, 7 * DAY_SECONDS)
    assert tidied() == [(job.id, "finished 7 days ago: its checkpoint")]
    assert store.references() == {digest("teacher"), digest("student")}
    assert store.get(job.id).artifacts == job.artifacts
    assert store.events(job.id)[-1].data == {"artifacts": [], "checkpoint": True}
    assert tidied() == []
    age_end(store, job.id, MONTH_SECONDS)
    assert tidied() == [(job.id, "finished 30 days ago: its files")]
    assert store.references() == {digest("teacher")}


def test_no_checkpoint_outlives_the_files_of_its_job(store: Store, artifacts: ArtifactStore) -> None:
    job = finish(store, artifacts, "student")
    age_end(store, job.id, DAY_SECONDS)
    collect_garbage(store, artifacts, retention_seconds=DAY_SECONDS, checkpoint_retention_seconds=MONTH_SECONDS)
    assert store.references() == {digest("teacher")}


def test_a_live_job_keeps_both_checkpoints(store: Store, artifacts: ArtifactStore) -> None:
    job = submit(store)
    store.claim("me", 60, 1)
    for step in (1, 2):
        store.record_checkpoint(job.id, 1, step=step, sha256=keep(artifacts, f"at {step}"), num_bytes=7)
    keep(artifacts, "teacher")
    assert collect_garbage(store, artifacts, retention_seconds=0.0, quarantine_seconds=0.0) == []
    assert {digest("at 1"), digest("at 2")} < set(artifacts.digests())


def test_bytes_that_another_job_needs_stay(store: Store, artifacts: ArtifactStore) -> None:
    finish(store, artifacts, "student")
    collect_garbage(store, artifacts, retention_seconds=0.0)
    another = finish(store, artifacts, "student")
    acts = collect_garbage(store, artifacts, retention_seconds=MONTH_SECONDS, quarantine_seconds=0.0)
    assert ("discharge", digest("student")) in told(acts)
    assert content(artifacts, another.artifacts[0].sha256) == b"student"


def test_a_row_whose_file_is_gone_is_named_every_time(
    store: Store, artifacts: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    job = finish(store, artifacts, "student")
    tidy(store, artifacts, hours=24)
    artifacts.delete(job.artifacts[0].sha256)
    for _ in range(2):
        assert ("lost", digest("student")) in told(tidy(store, artifacts, hours=24))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["lost"] * 2


def test_a_database_restored_from_a_backup_costs_no_file(tmp_path: Path, artifact_settings: dict[str, str]) -> None:
    """F35: files younger than the backup have no row. Nothing is deleted, and the newer database finds them all."""
    settings = Settings(data_dir=tmp_path / "data", **artifact_settings)
    settings.data_dir.mkdir()
    ledger, backup, today = (settings.data_dir / "ledger.sqlite3", tmp_path / "backup", tmp_path / "today")
    artifacts = open_artifacts(settings)
    with_store(settings, lambda store: finish(store, artifacts, "yesterday"))
    shutil.copy(ledger, backup)
    with_store(settings, lambda store: finish(store, artifacts, "today"))
    shutil.copy(ledger, today)
    before = set(artifacts.digests())

    shutil.copy(backup, ledger)
    acts = with_store(settings, lambda store: tidy(store, artifacts, hours=24))
    assert ("quarantine", digest("today")) in told(acts)
    assert set(artifacts.digests()) == before
    assert content(artifacts, digest("yesterday")) == b"yesterday"

    shutil.copy(today, ledger)
    acts = with_store(settings, lambda store: tidy(store, artifacts, hours=0))
    assert ("discharge", digest("today")) in told(acts)
    assert content(artifacts, digest("today")) == b"today"


def with_store(settings: Settings, act: Callable[[Store], T]) -> T:
    """Between two copies of the file nobody has it open."""
    store = open_store(settings)
    try:
        return act(store)
    finally:
        store.close()
