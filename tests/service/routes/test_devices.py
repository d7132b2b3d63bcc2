"""Clients may request a device class, but neither a tenant nor a priority."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.conftest import SPEC
from tests.service.harness import Service, post_parts, problem_of, spec_text


def posted(http: httpx.Client, teacher: bytes, **more: Any) -> httpx.Response:
    return post_parts(http, [("spec", spec_text({**SPEC, **more})), ("teacher", teacher)])


@pytest.fixture
def for_gpu(service: Service, teacher: bytes) -> Iterator[str]:
    """The id of a queued job that asks for a GPU."""
    job_id = str(posted(service.http, teacher, device="gpu").json()["id"])
    yield job_id
    service.http.post(f"/jobs/{job_id}/cancel")


def columns(service: Service, job_id: str) -> tuple[Any, ...]:
    with service.store._database.connected(writes=False) as connection:
        asked = "SELECT tenant, priority, device_class FROM jobs WHERE id = '{}'"
        return tuple(connection.exec_driver_sql(asked.format(job_id)).one())


def test_the_class_that_a_job_asks_for_is_kept_and_echoed(service: Service, for_gpu: str, queued: str) -> None:
    assert service.http.get(f"/jobs/{for_gpu}").json()["spec"]["device"] == "gpu"
    assert service.http.get(f"/jobs/{queued}").json()["spec"]["device"] is None
    assert columns(service, for_gpu) == ("default", 0, "gpu")
    assert columns(service, queued) == ("default", 0, "any")


def test_another_device_than_these_is_refused(http: httpx.Client, teacher: bytes) -> None:
    for device in ("tpu", "any", "cuda:0", 1):
        refused = posted(http, teacher, device=device)
        assert refused.status_code == 422
        assert [error["pointer"] for error in problem_of(refused)["errors"]] == ["/device"]


@pytest.mark.parametrize("key", ["tenant", "tenant_id", "priority", "device_class", "state", "id", "worker"])
def test_no_field_of_a_request_says_whose_it_is_or_how_much_it_matters(
    http: httpx.Client, teacher: bytes, key: str
) -> None:
    refused = posted(http, teacher, **{key: "1"})
    assert refused.status_code == 422
    [error] = problem_of(refused)["errors"]
    assert error["pointer"] == f"/{key}"
    assert error["detail"].startswith("unknown key")


def test_headers_and_queries_do_not_say_so_either(service: Service, teacher: bytes) -> None:
    parts = {"teacher": ("t", teacher), "spec": ("s", spec_text(SPEC))}
    told = {"X-Tenant": "other", "X-Priority": "9", "Priority": "u=0"}
    answer = service.http.post("/jobs?tenant=other&priority=9", files=parts, headers=told)
    assert answer.status_code == 202
    assert columns(service, answer.json()["id"]) == ("default", 0, "any")


def test_a_class_that_no_worker_serves_is_told_and_jobs_are_still_taken(service: Service, for_gpu: str) -> None:
    service.store.worker_seen("c", host="here", slots=1, device="cpu")
    try:
        answer = service.http.get("/readyz")
        assert (answer.status_code, answer.json()["status"], answer.json()["missing"]) == (200, "degraded", ["devices"])
        assert answer.json()["checks"]["devices"] == "no-worker-for-device: gpu; these jobs wait"
        service.store.worker_seen("g", host="here", slots=1, device="cuda:1")
        assert service.http.get("/readyz").json()["checks"]["devices"] == "ok"
    finally:
        service.store.worker_gone("c")
        service.store.worker_gone("g")


def test_the_queue_of_each_class_has_its_figures(service: Service, for_gpu: str) -> None:
    lines = service.http.get("/metrics").text.splitlines()
    depths = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("dfkd_queue_depth")}
    assert depths['dfkd_queue_depth{device_class="gpu",spec_version="3"}'] == 1
    assert depths['dfkd_queue_depth{device_class="cpu",spec_version="3"}'] == 0
