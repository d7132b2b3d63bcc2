"""DELETE over HTTP: no trace of the job stays, and the receipt lists what was removed and what stays."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dfkd.client import Client, Refused
from jobs.garbage_collector import collect_garbage
from tests.builders import onnx_teacher
from tests.service.conftest import SPEC, claim
from tests.service.harness import Holdings, Service, holdings, problem_of, running_service


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of which nobody else asks anything."""
    with running_service(tmp_path_factory.mktemp("purges") / "data", DFKD_SWEEP_SECONDS="3600") as running:
        with running.artifacts.keeping():
            pass  # its lock is a file that stays
        yield running


@pytest.fixture
def client(alone: Service) -> Iterator[Client]:
    with Client(alone.url) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A teacher's file."""
    (tmp_path / "teacher.onnx").write_bytes(onnx_teacher(seed=5))
    return tmp_path / "teacher.onnx"


def belongings(service: Service) -> Holdings:
    """What the service holds, but for the records of who did what and of what was used."""
    found = holdings(service)
    return replace(found, rows={name: rows for name, rows in found.rows.items() if name not in {"audit", "usage"}})


def with_a_checkpoint(service: Service, job_id: str) -> None:
    """Run a job for a while, and cancel it."""
    fence = claim(service, job_id)
    sha256, _ = service.artifacts.receive([b"checkpoint of ", job_id.encode()], 1000).commit()
    assert service.store.record_checkpoint(job_id, fence, step=1, sha256=sha256, num_bytes=7)
    service.store.request_cancel(job_id)
    assert service.store.cancelled(job_id, fence)


def test_after_a_job_came_and_went_the_service_holds_what_it_held(alone: Service, client: Client, file: Path) -> None:
    before = belongings(alone)
    job = client.submit(file, {**SPEC, "name": "secret", "labels": {"of": "somebody"}}, key="a-key")
    with_a_checkpoint(alone, job.id)
    events = len(list(client.events(job.id)))
    assert belongings(alone) != before
    receipt = client.delete(job.id)
    assert belongings(alone) == before
    assert (receipt.kind, receipt.id, receipt.kept) == ("job", job.id, [])
    assert receipt.rows == {"jobs": 1, "events": events, "labels": 1, "teachers": 1, "requests": 1}
    teacher = hashlib.sha256(file.read_bytes()).hexdigest()
    assert {file.role[0]: file.sha256 for file in receipt.files}["teacher"] == teacher
    assert receipt.deleted_at >= job.created_at
    with pytest.raises(Refused, match="job-not-found"):
        client.delete(job.id)


def test_a_key_is_free_when_what_it_told_of_is_deleted(alone: Service, client: Client, file: Path) -> None:
    first = client.submit(file, SPEC, key="again")
    assert client.submit(file, SPEC, key="again").id == first.id
    with_a_checkpoint(alone, first.id)
    client.delete(first.id)
    second = client.submit(file, SPEC, key="again")
    assert second.id != first.id
    with_a_checkpoint(alone, second.id)
    client.delete(second.id)


def test_a_teacher_is_deleted_when_no_live_job_uses_it(alone: Service, client: Client, file: Path) -> None:
    before = belongings(alone)
    teacher = client.upload(file)
    job = client.submit(teacher.id, SPEC)
    refused = problem_of(alone.http.delete(f"/teachers/{teacher.id}"))
    assert (refused["status"], refused["code"]) == (409, "teacher-in-use")
    assert alone.artifacts.exists(teacher.id)
    with_a_checkpoint(alone, job.id)
    receipt = client.delete_teacher(teacher.id)
    assert sorted(file.role for file in receipt.files) == [["checkpoint"], ["teacher"]]
    assert problem_of(alone.http.get(f"/teachers/{teacher.id}"))["code"] == "teacher-not-found"
    assert problem_of(alone.http.delete(f"/teachers/{teacher.id}"))["code"] == "teacher-not-found"
    assert problem_of(alone.http.post(f"/jobs/{job.id}/retry"))["code"] == "teacher-not-found"
    assert client.job(job.id).teacher.inspection == {}
    assert client.delete(job.id).kept == []
    assert belongings(alone) == before


def test_a_teacher_that_nobody_used_for_long_is_gone_as_if_it_had_been_deleted(
    alone: Service, client: Client, file: Path
) -> None:
    before = belongings(alone)
    teacher = client.upload(file)
    job = client.submit(teacher.id, SPEC)
    with_a_checkpoint(alone, job.id)
    for act in ("expire", "delete"):  # its file waits in quarantine for the time that it is given, here none
        acts = collect_garbage(alone.store, alone.artifacts, retention_seconds=0.0, quarantine_seconds=0.0)
        assert (act, teacher.id) in {(act.verb, act.what) for act in acts}
    assert not alone.artifacts.exists(teacher.id)
    spec = {**SPEC, "teacher": {"id": teacher.id}}
    refused = [alone.http.post("/jobs", json=spec), alone.http.get(f"/teachers/{teacher.id}")]
    refused += [alone.http.post(f"/jobs/{job.id}/{act}", json={}) for act in ("retry", "continue")]
    codes = [(answer.status_code, problem_of(answer)["code"]) for answer in refused]
    assert codes == [(404, "teacher-not-found")] * 3 + [(410, "checkpoint-expired")]
    assert client.job(job.id).teacher.inspection == {}
    assert client.delete(job.id).kept == []
    assert belongings(alone) == before
