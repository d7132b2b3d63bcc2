"""/jobs: show, list, cancel, delete."""

import json
import uuid
from datetime import datetime

import httpx
import pytest

from dfkd_core.notice import Notice
from jobs.models import BestStudent, JobError, Progress
from tests.jobs.clockwork import age_spec
from tests.service.conftest import SPEC, claim
from tests.service.harness import Finished, Service, post_parts, problem_of, spec_text

UNKNOWN_IDS = [str(uuid.UUID(int=7)), "x", "%00", "A" * 5000, "%F0%9F%90%88", "' OR 1=1 --"]


def submit(http: httpx.Client, teacher: bytes, **labels: str) -> str:
    response = post_parts(http, [("spec", spec_text({**SPEC, "labels": labels})), ("teacher", teacher)])
    return str(response.json()["id"])


def test_a_running_job_shows_how_far_it_is(service: Service, running: tuple[str, int]) -> None:
    job_id, fence = running
    told = {"step": 100, "total_steps": 400, "agreement": 0.8, "message": "going well", "eta_seconds": 90.0}
    progress = Progress(stage="distill", fraction=0.25, **told)
    best = BestStudent(step=90, agreement=0.8)
    warning = Notice(code="a-warning", detail="of this test")
    assert service.store.record(job_id, fence, progress=progress, best=best, warnings=[warning])
    job = service.http.get(f"/jobs/{job_id}").json()
    assert (job["state"], job["stage"], job["attempt"], job["queue_position"]) == ("running", "distill", 1, None)
    assert 0 < job["progress"]["eta_seconds"] <= 90.0  # less the time since it was written
    assert job["progress"]["message"] == "going well"
    assert job["progress"]["agreement"] == job["best"]["agreement"] == 0.8
    assert "a-warning" in {warning["code"] for warning in job["warnings"]}
    assert all(job[name].endswith("Z") for name in ("created_at", "updated_at", "started_at", "heartbeat_at"))
    assert datetime.fromisoformat(job["created_at"]) <= datetime.fromisoformat(job["started_at"])


def test_an_unchanged_job_costs_no_body(service: Service, running: tuple[str, int]) -> None:
    path = f"/jobs/{running[0]}"
    etag = service.http.get(path).headers["etag"]
    assert etag.startswith('W/"')
    same = service.http.get(path, headers={"If-None-Match": f'"other", {etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert same.headers["retry-after"] == "1"
    service.store.record(*running, progress=Progress(stage="load", fraction=0.01))
    changed = service.http.get(path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["stage"]) == (200, "load")


def test_the_place_in_the_queue_is_part_of_the_etag(http: httpx.Client, teacher: bytes) -> None:
    first, second = submit(http, teacher), submit(http, teacher)
    before = http.get(f"/jobs/{second}")
    http.post(f"/jobs/{first}/cancel")
    after = http.get(f"/jobs/{second}", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["queue_position"] == before.json()["queue_position"] - 1


def test_a_finished_job_is_not_asked_for_again(http: httpx.Client, finished: Finished) -> None:
    response = http.get(f"/jobs/{finished.id}")
    job = response.json()
    assert "retry-after" not in response.headers
    assert (job["state"], job["terminal"], job["stage"], job["progress"]["fraction"]) == (
        "succeeded",
        True,
        "done",
        1.0,
    )
    assert [artifact["name"] for artifact in job["artifacts"]] == sorted(finished.files)


def test_a_failed_job_says_why(service: Service, running: tuple[str, int]) -> None:
    error = JobError(
        code="generator-collapsed", detail="one image only", hint="another seed", stage="distill", attempt=1
    )
    assert service.store.fail(*running, error=error)
    job = service.http.get(f"/jobs/{running[0]}").json()
    assert (job["state"], job["terminal"], job["error"]) == ("failed", True, error.model_dump())


def test_a_job_with_the_spec_of_another_version_is_answered_for_by_every_route(service: Service, queued: str) -> None:
    http, stored = service.http, {"student": ["lenet5_half"], "name": "old", "labels": {"made": "before"}}
    age_spec(service.store, queued, json.dumps(stored))
    job = http.get(f"/jobs/{queued}").json()
    assert (job["spec"], job["name"], job["labels"], job["state"]) == (stored, "old", {"made": "before"}, "queued")
    assert job["id"] in {listed["id"] for listed in http.get("/jobs").json()["jobs"]}
    assert http.get(f"/jobs/{queued}/artifacts").json() == {"artifacts": []}
    assert http.get(f"/jobs/{queued}/events").json()["last_seq"] == 1
    assert http.post(f"/jobs/{queued}/cancel").json()["state"] == "cancelled"
    assert http.delete(f"/jobs/{queued}").status_code == 200


def test_a_job_that_no_worker_can_read_fails_and_says_so(service: Service, http: httpx.Client, teacher: bytes) -> None:
    unreadable, following = submit(http, teacher), submit(http, teacher)
    age_spec(service.store, unreadable, "{}")
    claim(service, following)
    job = http.get(f"/jobs/{unreadable}").json()
    assert (job["state"], job["spec"], job["attempt"]) == ("failed", {}, 0)
    assert http.get(f"/problems/{job['error']['code']}").json()["status"] is None


@pytest.mark.parametrize("unknown", UNKNOWN_IDS)
def test_an_unknown_job_is_not_found_by_any_route(http: httpx.Client, unknown: str) -> None:
    for method, path in (
        ("GET", f"/jobs/{unknown}"),
        ("DELETE", f"/jobs/{unknown}"),
        ("POST", f"/jobs/{unknown}/cancel"),
        ("GET", f"/jobs/{unknown}/events"),
        ("GET", f"/jobs/{unknown}/artifacts"),
        ("GET", f"/jobs/{unknown}/artifacts/student.onnx"),
    ):
        response = http.request(method, path)
        assert (response.status_code, problem_of(response)["code"]) == (404, "job-not-found"), path


def test_pages_neither_repeat_nor_miss_a_job_while_others_arrive(http: httpx.Client, teacher: bytes) -> None:
    label = uuid.uuid4().hex
    ids = [submit(http, teacher, run=label) for _ in range(5)]
    seen: list[str] = []
    path: str | None = f"/jobs?limit=2&label=run={label}"
    while path:
        response = http.get(path)
        seen += [job["id"] for job in response.json()["jobs"]]
        submit(http, teacher, run=label)
        path = response.links.get("next", {}).get("url")
        assert (path is None) == (response.json()["next_cursor"] is None)
    assert seen == ids[::-1]


def test_jobs_are_chosen_by_state_and_by_every_label(http: httpx.Client, teacher: bytes) -> None:
    run = uuid.uuid4().hex
    waiting, gone = submit(http, teacher, run=run, kind="a"), submit(http, teacher, run=run, kind="b")
    http.post(f"/jobs/{gone}/cancel")

    def found(query: str) -> list[str]:
        return [job["id"] for job in http.get(f"/jobs?label=run={run}&{query}").json()["jobs"]]

    assert found("") == [gone, waiting]
    assert found("state=queued") == [waiting]
    assert found("state=queued,cancelled") == found("state=queued&state=cancelled") == [gone, waiting]
    assert found("label=kind=b") == [gone]
    assert found("label=kind=b&state=queued") == []


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("state=asleep", "state"),
        ("state=queued,", "state"),
        ("label=a", "label"),
        ("label=a=b&label=a=c", "label"),
        ("label=%00=b", "label"),
        ("staet=queued", "staet"),
    ],
)
def test_a_wrong_query_is_refused_by_the_name_of_its_parameter(http: httpx.Client, query: str, parameter: str) -> None:
    response = http.get(f"/jobs?{query}")
    assert response.status_code == 422
    assert [error["parameter"] for error in problem_of(response)["errors"]] == [parameter]


@pytest.mark.parametrize("cursor", ["x", "", "%00", "é", "A" * 150, "MQ==" * 9])
def test_a_cursor_that_is_not_ours_is_refused(http: httpx.Client, cursor: str) -> None:
    response = http.get("/jobs", params={"cursor": cursor})
    problem = problem_of(response)
    assert (response.status_code, problem["code"]) == (422, "validation-error")
    assert [error["parameter"] for error in problem["errors"]] == ["cursor"]


def test_a_queued_job_is_cancelled_at_once_and_once(http: httpx.Client, queued: str) -> None:
    first, second = (http.post(f"/jobs/{queued}/cancel") for _ in range(2))
    assert (first.status_code, first.json()["state"]) == (202, "cancelled")
    assert (second.status_code, second.json()["state"]) == (200, "cancelled")


def test_a_running_job_is_cancelling_until_its_worker_has_stopped(service: Service, running: tuple[str, int]) -> None:
    path = f"/jobs/{running[0]}/cancel"
    first, second = service.http.post(path), service.http.post(path)
    assert (first.status_code, first.json()["state"], first.json()["terminal"]) == (202, "cancelling", False)
    assert (second.status_code, second.json()["state"]) == (200, "cancelling")
    assert service.store.cancelled(*running)
    assert service.http.get(f"/jobs/{running[0]}").json()["state"] == "cancelled"


def test_a_finished_job_cannot_be_cancelled(http: httpx.Client, finished: Finished) -> None:
    problem = problem_of(http.post(f"/jobs/{finished.id}/cancel"))
    assert (problem["status"], problem["code"], problem["state"]) == (409, "invalid-transition", "succeeded")
    assert "queued" in problem["allowed"]


def test_a_live_job_cannot_be_deleted(service: Service, running: tuple[str, int]) -> None:
    problem = problem_of(service.http.delete(f"/jobs/{running[0]}"))
    assert (problem["status"], problem["code"], problem["state"]) == (409, "invalid-transition", "running")
    assert problem["allowed"] == ["succeeded", "failed", "cancelled"]


def test_a_deleted_job_takes_its_files_along_and_leaves_the_teacher(service: Service, finished: Finished) -> None:
    job = service.http.get(f"/jobs/{finished.id}").json()
    digests = [artifact["sha256"] for artifact in job["artifacts"]]
    assert all(service.artifacts.exists(sha256) for sha256 in digests)
    response = service.http.delete(f"/jobs/{finished.id}")
    assert (response.status_code, response.json()["id"]) == (200, finished.id)
    assert not any(service.artifacts.exists(sha256) for sha256 in digests)
    assert service.artifacts.exists(job["teacher"]["id"])
    assert service.http.get(f"/jobs/{finished.id}").status_code == 404
    assert service.http.delete(f"/jobs/{finished.id}").status_code == 404


def test_the_checkpoint_of_a_deleted_job_goes_too(service: Service, running: tuple[str, int], teacher: bytes) -> None:
    checkpoint = service.artifacts.receive([b"checkpoint of ", running[0].encode()], 1000)
    sha256, _ = checkpoint.commit()
    assert service.store.record_checkpoint(*running, step=1, sha256=sha256, num_bytes=7)
    service.http.post(f"/jobs/{running[0]}/cancel")
    service.store.cancelled(*running)
    assert service.http.delete(f"/jobs/{running[0]}").status_code == 200
    assert not service.artifacts.exists(sha256)


def test_a_file_that_another_job_has_too_stays(service: Service, finished: Finished, teacher: bytes) -> None:
    twin = submit(service.http, teacher)
    artifacts = service.store.get(finished.id).artifacts
    assert service.store.succeed(twin, claim(service, twin), artifacts=artifacts)
    assert service.http.delete(f"/jobs/{finished.id}").status_code == 200
    for artifact in artifacts:
        kept = service.http.get(f"/jobs/{twin}/artifacts/{artifact.name}")
        assert (kept.status_code, kept.content) == (200, finished.files[artifact.name])
