"""Quotas over HTTP: a 429 comes before the body is read and leaves nothing behind; GET /quota shows the use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.quota_limits import Quota
from tests.builders import onnx_teacher
from tests.jobs.clockwork import use_up
from tests.patience import PATIENCE
from tests.service.conftest import SPEC
from tests.service.harness import Service, holdings, post_parts, problem_of, running_service, spec_text
from tests.service.middleware.test_metrics import scraped, value

LIMIT = 3
OCTETS = {"Content-Type": "application/octet-stream"}
TEACHER = onnx_teacher()
TEACHER_ID = sha256(TEACHER).hexdigest()
FRESH = onnx_teacher(seed=123)  # never accepted, so that its file would be noticed


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on which a tenant may have three queued jobs."""
    directory = tmp_path_factory.mktemp("limited")
    with running_service(directory / "data", DFKD_QUOTA_QUEUED_JOBS=str(LIMIT), DFKD_SWEEP_SECONDS="3600") as running:
        yield running


@pytest.fixture
def empty(limited: Service) -> Service:
    """The same with no job queued, and no limits but that one."""
    for job in limited.store.list(100).jobs:
        if not job.state.terminal:
            limited.store.request_cancel(job.id)
    limited.store.tenants.limit("default", dict.fromkeys(Quota))
    assert limited.http.post("/teachers", content=TEACHER, headers=OCTETS).status_code in {200, 201}
    return limited


def submit(service: Service, **headers: str) -> httpx.Response:
    """A job for a teacher that is there."""
    return service.http.post("/jobs", json={**SPEC, "teacher": {"id": TEACHER_ID}}, headers=headers)


def over(response: httpx.Response, quota: Quota) -> dict[str, Any]:
    problem = problem_of(response)
    assert (response.status_code, problem["code"], problem["quota"]) == (429, "quota-exceeded", quota)
    assert problem["hint"]
    return problem


def test_a_refused_job_leaves_no_row_no_file_and_no_key(empty: Service) -> None:
    accepted = [submit(empty).status_code for _ in range(LIMIT)]
    assert accepted == [202] * LIMIT
    before = holdings(empty)
    parts = [("spec", spec_text(SPEC)), ("teacher", FRESH)]
    problem = over(post_parts(empty.http, parts), Quota.QUEUED_JOBS)
    assert (problem["limit"], problem["used"]) == (LIMIT, LIMIT)
    over(submit(empty, **{"Idempotency-Key": "too-many"}), Quota.QUEUED_JOBS)
    assert holdings(empty) == before
    empty.store.request_cancel(empty.store.list(1).jobs[0].id)
    assert submit(empty, **{"Idempotency-Key": "too-many"}).status_code == 202


def test_what_was_answered_before_is_answered_again_over_the_limit(empty: Service) -> None:
    first = submit(empty, **{"Idempotency-Key": "again"})
    for _ in range(LIMIT - 1):
        submit(empty)
    again = submit(empty, **{"Idempotency-Key": "again"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_the_crowd_gets_exactly_what_there_is(empty: Service) -> None:
    def post(_number: int) -> int:
        with httpx.Client(base_url=empty.url, timeout=PATIENCE) as http:
            return http.post("/jobs", json={**SPEC, "teacher": {"id": TEACHER_ID}}).status_code

    with ThreadPoolExecutor(12) as pool:
        answers = sorted(pool.map(post, range(12)))
    assert answers == [202] * LIMIT + [429] * (12 - LIMIT)


def test_without_room_the_figures_are_told_and_what_is_there_is_taken_again(empty: Service) -> None:
    used = empty.http.get("/quota").json()["stored_bytes"]["used"]
    empty.store.tenants.limit("default", {Quota.STORED_BYTES: used + 1000})
    problem = over(empty.http.post("/teachers", content=FRESH, headers=OCTETS), Quota.STORED_BYTES)
    assert (problem["limit"], problem["used"]) == (used + 1000, used)
    known = {**OCTETS, "X-Content-SHA256": TEACHER_ID}
    assert empty.http.post("/teachers", content=TEACHER, headers=known).status_code == 200


def test_the_end_of_the_day_is_told_where_its_seconds_are_used_up(empty: Service) -> None:
    use_up(empty.store, "default", 86400.0)
    empty.store.tenants.limit("default", {Quota.DEVICE_SECONDS: 86400})
    refused = submit(empty)
    over(refused, Quota.DEVICE_SECONDS)
    assert 0 < int(refused.headers["retry-after"]) <= 86400


def test_retry_and_continue_count_too(empty: Service) -> None:
    job_id = submit(empty).json()["id"]
    empty.http.post(f"/jobs/{job_id}/cancel")
    for _ in range(LIMIT):
        submit(empty)
    over(empty.http.post(f"/jobs/{job_id}/retry"), Quota.QUEUED_JOBS)


def test_everybody_may_ask_for_their_quota(empty: Service) -> None:
    submit(empty)
    told = empty.http.get("/quota").json()
    assert told["tenant"] == "default"
    assert told["queued_jobs"] == {"limit": LIMIT, "used": 1}
    assert told["running_jobs"] == {"limit": None, "used": 0}
    assert told["stored_bytes"]["used"] >= len(TEACHER)


def test_refusals_are_counted_by_quota(empty: Service) -> None:
    name = "dfkd_quota_refused_total"
    before = value(scraped(empty.http), name, quota="queued_jobs")
    for _ in range(LIMIT + 2):
        submit(empty)
    assert value(scraped(empty.http), name, quota="queued_jobs") == before + 2


def test_the_same_holds_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    settings = {"DFKD_DATABASE_URL": postgres_url, "DFKD_QUOTA_QUEUED_JOBS": str(LIMIT)}
    with running_service(tmp_path / "data", **settings) as service:
        assert service.http.post("/teachers", content=TEACHER, headers=OCTETS).status_code == 201
        test_the_crowd_gets_exactly_what_there_is(service)
