"""/jobs/{id}/retry and /jobs/{id}/continue, and their methods of the client and commands."""

import math
from pathlib import Path
from typing import Any

import httpx
import pytest

from dfkd import Client
from jobs.models import JobSpec, Progress
from tests.builders import worker_speed
from tests.jobs.clockwork import age_spec
from tests.service.conftest import claim
from tests.service.harness import Finished, Service, holdings, problem_of

MORE = {"distillation": {"budget": {"steps": 90_000}}}


@pytest.fixture
def done(service: Service, queued: str, tmp_path: Path) -> str:
    """A job that has succeeded after all its steps, and left a checkpoint."""
    fence = claim(service, queued)
    (tmp_path / "checkpoint").write_bytes(b"checkpoint of " + queued.encode())
    sha256, _ = service.artifacts.put_file(tmp_path / "checkpoint")
    spec = service.store.get(queued).spec
    assert isinstance(spec, JobSpec)
    steps = spec.distillation.budget.steps
    service.store.record(queued, fence, progress=Progress(stage="distill", step=steps, total_steps=steps))
    assert service.store.record_checkpoint(queued, fence, step=steps, sha256=sha256, num_bytes=7)
    assert service.store.succeed(queued, fence, artifacts=[])
    return queued


def test_a_finished_job_is_run_once_more(http: httpx.Client, finished: Finished) -> None:
    old = http.get(f"/jobs/{finished.id}").json()
    response = http.post(f"/jobs/{finished.id}/retry")
    new = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/jobs/{new['id']}")
    assert (new["state"], new["retried_from"], new["continued_from"]) == ("queued", old["id"], None)
    assert (new["spec"], new["teacher"]) == (old["spec"], old["teacher"])
    assert http.get(f"/jobs/{finished.id}").json()["revision"] == old["revision"]


def test_a_finished_job_goes_on_under_a_larger_budget(service: Service, done: str) -> None:
    changes = {**MORE, "name": "longer", "labels": {"a": "b"}}
    response = service.http.post(service.http.get(f"/jobs/{done}").json()["links"]["continue"], json=changes)
    new, old = response.json(), service.http.get(f"/jobs/{done}").json()
    assert (response.status_code, response.headers["location"]) == (202, f"/jobs/{new['id']}")
    assert (new["continued_from"], new["name"], new["labels"]) == (done, "longer", {"a": "b"})
    assert new["spec"]["distillation"] == {
        **old["spec"]["distillation"],
        "budget": {"effort": "standard", "steps": 90_000, "max_seconds": None},
    }
    claimed = service.store.claim("a-test", 600, 1)
    while claimed is not None and claimed.job.id != new["id"]:
        claimed = service.store.claim("a-test", 600, 1)
    assert claimed is not None
    assert claimed.checkpoint_sha256 == service.store.last_checkpoint(done)


def test_the_estimate_of_a_continued_job_is_that_of_the_rest(service: Service, done: str) -> None:
    service.store.worker_seen("w", host="box", slots=1, device="cpu", speed=worker_speed(), memory_bytes=8 * 10**9)
    steps = service.http.get(f"/jobs/{done}").json()["spec"]["distillation"]["budget"]["steps"]
    seconds = []
    try:
        for more in (1, steps):
            budget = {"distillation": {"budget": {"steps": steps + more}}}
            [estimate] = service.http.post(f"/jobs/{done}/continue", json=budget).json()["estimate"]
            seconds.append(estimate["seconds"])
        [whole] = service.http.post(f"/jobs/{done}/retry").json()["estimate"]
    finally:
        service.store.worker_gone("w")
    assert seconds[0] < 0.5 * whole["seconds"]
    assert seconds[0] < seconds[1] < 1.2 * whole["seconds"]


def test_a_higher_effort_means_its_steps(http: httpx.Client, done: str) -> None:
    old = http.get(f"/jobs/{done}").json()["spec"]["distillation"]
    response = http.post(f"/jobs/{done}/continue", json={"distillation": {"budget": {"effort": "thorough"}}})
    new = response.json()["spec"]["distillation"]
    assert response.status_code == 202
    assert new["budget"]["effort"] == "thorough"
    assert 2 * old["budget"]["steps"] < new["budget"]["steps"] < 8 * old["budget"]["steps"]
    assert {**new, "budget": None} == {**old, "budget": None}


def test_an_effort_that_is_done_already_is_refused_with_its_steps(http: httpx.Client, done: str) -> None:
    steps = http.get(f"/jobs/{done}").json()["spec"]["distillation"]["budget"]["steps"]
    problem = problem_of(http.post(f"/jobs/{done}/continue", json={"distillation": {"budget": {"effort": "quick"}}}))
    [error] = problem["errors"]
    assert (problem["status"], error["pointer"]) == (422, "/distillation/budget/effort")
    assert error["detail"].startswith("quick comes to ")
    assert error["detail"].endswith(f"{steps} of {steps} are done")
    assert f"{steps + 1} or more" in problem["hint"]


def test_explicit_steps_win_over_a_higher_effort(http: httpx.Client, done: str) -> None:
    budget = {"effort": "thorough", "steps": 90_000}
    new = http.post(f"/jobs/{done}/continue", json={"distillation": {"budget": budget}}).json()
    assert new["spec"]["distillation"]["budget"] == {**budget, "max_seconds": None}


def test_the_whole_spec_may_be_echoed(http: httpx.Client, done: str) -> None:
    spec = http.get(f"/jobs/{done}").json()["spec"]
    spec["distillation"]["budget"]["steps"] = 80_000
    assert http.post(f"/jobs/{done}/continue", json=spec).status_code == 202


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({**MORE, "student": {"architecture": "lenet5"}}, "/student/architecture"),
        ({"distillation": {"seed": 8, "budget": {"steps": 90_000}}}, "/distillation/seed"),
        ({**MORE, "teacher": {"input": {"shape": [1, 32, 32], "mean": [0.5], "std": [0.5]}}}, "/teacher/input/mean"),
        ({**MORE, "export": {"opset": 17}}, "/export/opset"),
        ({**MORE, "accept": {"on_miss": "fail"}}, "/accept/on_miss"),
        ({"distillation": {"budget": {"steps": 6000}}}, "/distillation/budget/steps"),
        ({"distillation": {"budget": {"steps": 10}}}, "/distillation/budget/steps"),
        ({}, "/distillation/budget/steps"),
        ({"distillation": {"budget": {"stps": 90_000}}}, "/distillation/budget/stps"),
        ({"distillation": {"budget": {"steps": "9000"}}}, "/distillation/budget/steps"),
        ({"distillation": 3}, "/distillation"),
    ],
)
def test_what_else_would_change_is_refused_where_it_stands(
    service: Service, done: str, changes: dict[str, Any], pointer: str
) -> None:
    before = holdings(service)
    problem = problem_of(service.http.post(f"/jobs/{done}/continue", json=changes))
    assert (problem["status"], problem["code"]) == (422, "validation-error")
    assert pointer in {error["pointer"] for error in problem["errors"]}
    assert problem["hint"]
    assert holdings(service) == before


@pytest.mark.parametrize("verb", ["retry", "continue"])
def test_what_has_not_ended_is_refused(http: httpx.Client, queued: str, verb: str) -> None:
    problem = problem_of(http.post(f"/jobs/{queued}/{verb}", json=MORE))
    assert (problem["status"], problem["code"], problem["state"]) == (409, "invalid-transition", "queued")
    assert problem["allowed"] == ["succeeded", "failed", "cancelled"]
    assert problem_of(http.post(f"/jobs/{'0' * 8}/{verb}", json=MORE))["code"] == "job-not-found"


def test_a_job_without_a_checkpoint_is_not_continued(http: httpx.Client, finished: Finished) -> None:
    problem = problem_of(http.post(f"/jobs/{finished.id}/continue", json=MORE))
    assert (problem["status"], problem["code"]) == (410, "checkpoint-expired")


@pytest.mark.parametrize("how", ["expired", "lost"])
def test_a_job_whose_checkpoint_is_gone_is_not_continued(service: Service, done: str, how: str) -> None:
    if how == "expired":
        service.store.expire(done, math.inf, -1.0)
    else:
        service.artifacts.delete(service.store.last_checkpoint(done))
    problem = problem_of(service.http.post(f"/jobs/{done}/continue", json=MORE))
    assert (problem["status"], problem["code"]) == (410, "checkpoint-expired")


def test_the_body_of_continue_is_json(http: httpx.Client, done: str) -> None:
    assert problem_of(http.post(f"/jobs/{done}/continue", content=b"x"))["code"] == "unsupported-media-type"
    headers = {"Content-Type": "application/json"}
    assert problem_of(http.post(f"/jobs/{done}/continue", content=b"x", headers=headers))["code"] == "malformed-json"


def test_one_key_makes_one_new_job(service: Service, done: str) -> None:
    before = holdings(service).rows["jobs"]
    for verb in ("retry", "continue"):
        key = {"Idempotency-Key": f"{verb}-{done}"}
        first, second = (service.http.post(f"/jobs/{done}/{verb}", json=MORE, headers=key) for _ in "12")
        assert first.content == second.content
        assert second.headers["idempotency-replayed"] == "true"
    assert holdings(service).rows["jobs"] == before + 2


def test_a_spec_of_another_version_is_not_run_again(service: Service, done: str) -> None:
    age_spec(service.store, done, '{"name": "old", "wishes": 3}')
    for verb in ("retry", "continue"):
        assert problem_of(service.http.post(f"/jobs/{done}/{verb}", json=MORE))["code"] == "validation-error"


def test_the_client_retries_and_continues(service: Service, done: str) -> None:
    with Client(service.url, patience_seconds=0) as client:
        assert client.retry(done).retried_from == done
        assert client.continue_(done, MORE).continued_from == done
