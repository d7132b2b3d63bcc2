"""The auditor can fail: it is shown a ledger, a history and a disk that break each promise, and names it."""

import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from jobs.files.artifacts import open_artifacts
from jobs.models import ArtifactRef, TeacherRef
from jobs.settings import Settings
from jobs.store import open_store
from tests.builders import job_spec, teacher_ref
from tests.chaos.auditor import FILES, Footprint, Violation, compare
from tests.chaos.deployment import GET_SECONDS, TAKEOVER_SECONDS, Deployment
from tests.chaos.evidence import find_runners
from tests.chaos.history import Call


@dataclass
class Scene:
    """A job that went well: claimed twice, published, read, downloaded."""

    deployment: Deployment
    job_id: str
    student: str  # digest

    def sql(self, statement: str, *values: object) -> None:
        """A change that the ledger itself would never make."""
        with sqlite3.connect(self.deployment.data_dir / "ledger.sqlite3") as connection:
            connection.execute("PRAGMA ignore_check_constraints=ON")
            connection.execute(statement, values)

    def blob(self, digest: str) -> Path:
        return self.deployment.data_dir / "artifacts" / "blobs" / digest[:2] / digest

    def call(self, verb: str, **seen: object) -> Call:
        """One more call that has ended."""
        call = Call(verb, time.monotonic(), time.monotonic(), "ok", 200, job_id=self.job_id)
        for name, value in seen.items():
            setattr(call, name, value)
        self.deployment.history.calls.append(call)
        return call

    def named(self) -> set[str]:
        return {violation.invariant for violation in self.deployment.violations()}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data directory in which all is well, and its job."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("good") / "data")
    store, artifacts = open_store(settings), open_artifacts(settings)

    def keep(text: str) -> str:
        return artifacts.receive([text.encode()], 1000).commit()[0]

    teacher, job_id = keep("teacher"), str(uuid.uuid4())
    store.put_teacher(TeacherRef(**{**teacher_ref().model_dump(), "id": teacher}))
    store.create(job_id, job_spec(key="k1", recipe="good"), teacher)
    first = store.claim("somebody", 60, 1)
    assert first is not None
    store.record_checkpoint(job_id, first.fence, step=5, sha256=keep("checkpoint"), num_bytes=7)
    store.release(job_id, first.fence, reason="drained", charged=False)
    second = store.claim("somebody else", 60, 1)
    assert second is not None
    files = [ArtifactRef(name=name, sha256=keep(name), bytes=len(name), media_type="x") for name in sorted(FILES)]
    assert store.succeed(job_id, second.fence, artifacts=files)
    store.close()
    return settings.data_dir, job_id


@pytest.fixture
def scene(good: tuple[Path, str], tmp_path: Path) -> Iterator[Scene]:
    data_dir, job_id = good
    shutil.copytree(data_dir, tmp_path / "data")
    deployment = Deployment(tmp_path / "data")
    student = sha256(b"student.onnx").hexdigest()
    deployment.recipes["good"] = student
    scene = Scene(deployment, job_id, student)
    scene.call("submit", key="k1", state="queued", status=202)
    scene.call("get", state="running", fraction=0.5)
    scene.call("get", state="succeeded", fraction=1.0)
    scene.call("download", name="student.onnx", sha256=student, etag=student)
    yield scene
    deployment.stop()


def test_where_all_is_well_it_has_nothing_to_say(scene: Scene) -> None:
    assert scene.deployment.violations() == []


def a_job_that_never_ends(scene: Scene) -> None:
    scene.sql("UPDATE jobs SET state = 'queued', finished_at = NULL")


def an_accepted_job_that_is_gone(scene: Scene) -> None:
    scene.call("submit", key="k2", job_id=str(uuid.uuid4()), state="queued")


def a_key_with_two_jobs(scene: Scene) -> None:
    scene.call("submit", key="k1", job_id=str(uuid.uuid4()), state="queued")


def an_outcome_that_never_became_known(scene: Scene) -> None:
    scene.call("submit", key="k2", job_id=None, outcome="unknown", status=None)


def a_refusal_that_made_a_job(scene: Scene) -> None:
    scene.deployment.history.calls[0].outcome = "refused"
    scene.deployment.history.calls[0].status = 422


def a_claim_after_the_end(scene: Scene) -> None:
    scene.sql("INSERT INTO events SELECT job_number, 7, 'claimed', 3, at, data, write_id FROM events WHERE seq = 5")


def a_claim_without_a_new_fence(scene: Scene) -> None:
    scene.sql("UPDATE events SET fence = 1 WHERE seq >= 5")


def a_checkpoint_of_a_zombie(scene: Scene) -> None:
    scene.sql("UPDATE events SET kind = 'checkpoint', data = '{\"step\": 1}' WHERE kind = 'claimed' AND fence = 2")


def a_gap_in_the_history(scene: Scene) -> None:
    scene.sql("DELETE FROM events WHERE kind = 'checkpoint'")


def two_publications(scene: Scene) -> None:
    scene.sql("UPDATE events SET kind = 'succeeded' WHERE kind = 'released'")


def a_success_without_its_files(scene: Scene) -> None:
    scene.sql("DELETE FROM artifacts WHERE name = 'report.json'")


def files_of_a_failure(scene: Scene) -> None:
    scene.sql("UPDATE jobs SET state = 'failed'")


def a_flipped_byte(scene: Scene) -> None:
    scene.blob(scene.student).write_bytes(b"student.onnX")


def a_state_that_goes_back(scene: Scene) -> None:
    scene.call("get", state="running", fraction=1.0)


def progress_that_falls(scene: Scene) -> None:
    calls = scene.deployment.history.calls
    calls.insert(2, replace(calls[1], began_at=calls[1].ended_at + 1e-9, fraction=0.25))


def a_download_of_other_bytes(scene: Scene) -> None:
    scene.call("download", name="student.onnx", sha256=sha256(b"").hexdigest(), etag=scene.student)


def a_file_that_nobody_needs(scene: Scene) -> None:
    place = scene.blob(sha256(b"x").hexdigest())
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"x")


def a_teacher_that_is_gone(scene: Scene) -> None:
    scene.blob(sha256(b"teacher").hexdigest()).unlink()


def half_an_upload(scene: Scene) -> None:
    (scene.deployment.data_dir / "artifacts" / "temporary" / "half").touch()


def a_workspace(scene: Scene) -> None:
    (scene.deployment.data_dir / "work" / scene.job_id / "1").mkdir(parents=True)


def another_student(scene: Scene) -> None:
    scene.deployment.recipes["good"] = sha256(b"another").hexdigest()


def a_takeover_that_took_too_long(scene: Scene) -> None:
    scene.deployment.history.losses.append((scene.job_id, time.time() - 100 * TAKEOVER_SECONDS))


def steps_that_were_lost(scene: Scene) -> None:
    scene.sql("UPDATE events SET at = '2999-01-01T00:00:00.000Z' WHERE kind = 'claimed' AND fence = 2")
    scene.deployment.history.calls[1].step = 11


def an_internal_error(scene: Scene) -> None:
    scene.call("get", outcome="refused", status=500)


def an_excuse_without_a_fault(scene: Scene) -> None:
    scene.call("get", outcome="refused", status=503, retry_after=True)


def an_excuse_without_retry_after(scene: Scene) -> None:
    with scene.deployment.history.fault():
        scene.call("get", outcome="refused", status=503)


def slow_reads(scene: Scene) -> None:
    scene.call("get", began_at=time.monotonic() - 10 * GET_SECONDS, state="running", fraction=0.0)


def more_than_may_be_queued(scene: Scene) -> None:
    scene.deployment.quotas["queued"] = 0


def more_than_may_run(scene: Scene) -> None:
    scene.deployment.quotas["running"] = 0


CRIMES: list[tuple[str, Callable[[Scene], None]]] = [
    ("I1", a_job_that_never_ends),
    ("I1", an_accepted_job_that_is_gone),
    ("I1", a_key_with_two_jobs),
    ("I1", an_outcome_that_never_became_known),
    ("I1", a_refusal_that_made_a_job),
    ("I2", a_claim_after_the_end),
    ("I2", a_claim_without_a_new_fence),
    ("I2", a_checkpoint_of_a_zombie),
    ("I2", a_gap_in_the_history),
    ("I3", two_publications),
    ("I3", a_success_without_its_files),
    ("I3", files_of_a_failure),
    ("I3", a_flipped_byte),
    ("I4", a_state_that_goes_back),
    ("I4", progress_that_falls),
    ("I5", a_download_of_other_bytes),
    ("I6", a_file_that_nobody_needs),
    ("I6", a_teacher_that_is_gone),
    ("I6", half_an_upload),
    ("I6", a_workspace),
    ("I7", another_student),
    ("I9", a_takeover_that_took_too_long),
    ("I9", steps_that_were_lost),
    ("I11", an_internal_error),
    ("I11", an_excuse_without_a_fault),
    ("I11", an_excuse_without_retry_after),
    ("I12", slow_reads),
    ("I13", more_than_may_be_queued),
    ("I13", more_than_may_run),
]


@pytest.mark.parametrize(("invariant", "crime"), CRIMES, ids=[crime.__name__ for _, crime in CRIMES])
def test_it_names_what_was_broken(scene: Scene, invariant: str, crime: Callable[[Scene], None]) -> None:
    crime(scene)
    assert invariant in scene.named()


def test_an_excuse_during_a_fault_is_no_violation(scene: Scene) -> None:
    with scene.deployment.history.fault():
        scene.call("get", outcome="refused", status=503, retry_after=True)
    assert scene.named() == set()


def test_a_runner_of_this_deployment_is_seen(tmp_path: Path) -> None:
    task = tmp_path.joinpath("work", "a", "1", "workspace", "task.json")
    command = [sys.executable, "-c", "import time; time.sleep(60)", str(task)]
    process = subprocess.Popen(command)
    try:
        assert len(find_runners(tmp_path)) == 1
        assert find_runners(tmp_path / "elsewhere") == []
    finally:
        process.kill()
        process.wait()


def test_what_a_refusal_has_left_is_named() -> None:
    before = Footprint(3, frozenset(), (), frozenset(), 0, 0)
    assert compare(before, before) == []
    assert compare(before, replace(before, temporary=("half",))) == [Violation("I10", "temporary: () → ('half',)")]
