"""/plans: what a job would take; and the estimate that every accepted job shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.builders import worker_speed
from tests.service.conftest import SPEC
from tests.service.harness import (
    BOUNDARY,
    Service,
    holdings,
    multipart,
    post_parts,
    problem_of,
    running_service,
    spec_text,
)

NARROWED: dict[str, Any] = {"student": {"architecture": "teacher", "width": 0.5}}


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has seen a worker of two cores."""
    with running_service(tmp_path_factory.mktemp("staffed") / "data", DFKD_SWEEP_SECONDS="3600") as running:
        seen(running, memory_bytes=8 * 10**9)
        yield running


def seen(service: Service, *, memory_bytes: int | None = None, **measured: Any) -> None:
    """The heartbeat of the one worker."""
    speed = worker_speed(**measured)
    service.store.worker_seen("w", host="box", slots=1, device="cpu", speed=speed, memory_bytes=memory_bytes)


def planned(http: httpx.Client, spec: dict[str, Any], teacher: bytes) -> httpx.Response:
    body = multipart([("spec", spec_text(spec)), ("teacher", teacher)])
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return http.post("/plans", content=body, headers=headers)


def with_budget(**budget: Any) -> dict[str, Any]:
    return {**SPEC, "distillation": {"budget": budget}}


def test_without_a_worker_a_plan_has_sizes_and_no_times(http: httpx.Client, teacher: bytes) -> None:
    plan = planned(http, SPEC, teacher).json()
    assert plan["worker_classes"] == []
    assert plan["student"]["name"] == "lenet5_half"
    assert 0 < plan["student"]["parameters"] < plan["teacher"]["parameters"]
    assert plan["teacher"]["bytes"] == len(teacher)
    assert all(option["estimate"] is None and option["fits"] for option in plan["options"])


def test_a_plan_lists_every_effort_of_every_method_that_fits(staffed: Service, teacher: bytes) -> None:
    options = planned(staffed.http, SPEC, teacher).json()["options"]
    assert [option["chosen"] for option in options] == [True, *[False] * (len(options) - 1)]
    assert options[0]["effort"] == "standard"
    found = {(option["method"], option["effort"]) for option in options}
    assert {("auto", effort) for effort in ("quick", "standard", "thorough")} <= found
    assert {("dafl", "quick"), ("deepinversion", "thorough")} <= found
    assert ("ddad", "quick") not in found  # it needs BatchNorm statistics
    assert len(found) == len(options)


def test_a_plan_counts_the_precision_that_each_class_of_workers_chooses(staffed: Service, teacher: bytes) -> None:
    def plan(tries: tuple[float, ...], **compute: str) -> tuple[str, float]:
        seen(staffed, memory_bytes=8 * 10**9, bf16_factor=3.0, bf16_tries=tries)
        found = planned(staffed.http, {**SPEC, "distillation": {"compute": compute}}, teacher).json()
        seen(staffed, memory_bytes=8 * 10**9)
        return found["worker_classes"][0]["precision"], found["options"][0]["estimate"][0]["seconds"]

    pays, does_not = (1.4, 1.4, 1.4), (1.4, 1.4, 1.2)
    assert plan(pays) == ("bf16", plan(does_not, precision="bf16")[1])
    assert plan(does_not) == ("fp32", plan(pays, precision="fp32")[1])
    assert plan(pays)[1] < plan(does_not)[1]


def test_a_job_shows_the_precision_that_was_asked_for_whatever_pays(staffed: Service, teacher: bytes) -> None:
    seen(staffed, memory_bytes=8 * 10**9, bf16_tries=(2.0, 2.0, 2.0))
    spec = post_parts(staffed.http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).json()["spec"]
    seen(staffed, memory_bytes=8 * 10**9)
    again = post_parts(staffed.http, [("spec", spec_text(spec)), ("teacher", teacher)]).json()["spec"]
    slower = post_parts(staffed.http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).json()["spec"]
    assert spec["distillation"]["compute"]["precision"] == "auto"
    assert spec == again == slower


def test_more_effort_takes_longer(staffed: Service, teacher: bytes) -> None:
    options = planned(staffed.http, SPEC, teacher).json()["options"]
    seconds = {option["effort"]: option["estimate"][0]["seconds"] for option in options if option["method"] == "auto"}
    assert seconds["quick"] < seconds["standard"] < seconds["thorough"]


def test_steps_that_are_given_leave_no_efforts_to_choose_from(staffed: Service, teacher: bytes) -> None:
    options = planned(staffed.http, with_budget(steps=70), teacher).json()["options"]
    assert {(option["effort"], option["steps"]) for option in options} == {(None, 70)}


def test_the_job_shows_what_the_plan_says(staffed: Service, teacher: bytes) -> None:
    asked = planned(staffed.http, NARROWED, teacher).json()["options"][0]
    job = post_parts(staffed.http, [("spec", spec_text(NARROWED)), ("teacher", teacher)]).json()
    assert job["estimate"] == asked["estimate"]
    assert [entry["worker_class"] for entry in job["estimate"]] == ["cpu-2"]


def test_a_plan_for_a_known_teacher_is_that_for_its_file(staffed: Service, teacher: bytes) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    known = staffed.http.post("/teachers", content=teacher, headers=octets).json()["id"]
    by_id = staffed.http.post("/plans", json={**SPEC, "teacher": {"id": known}})
    assert by_id.json() == planned(staffed.http, SPEC, teacher).json()


def test_a_plan_keeps_nothing(staffed: Service, teacher: bytes) -> None:
    before = holdings(staffed)
    assert planned(staffed.http, SPEC, teacher).status_code == 200
    assert planned(staffed.http, {"student": {"architecture": "nothing"}}, teacher).status_code == 422
    assert holdings(staffed) == before


def test_what_no_worker_can_hold_is_refused_with_the_figures(staffed: Service, teacher: bytes) -> None:
    seen(staffed, memory_bytes=10**8)
    problem = problem_of(post_parts(staffed.http, [("spec", spec_text(SPEC)), ("teacher", teacher)]))
    plan = planned(staffed.http, SPEC, teacher).json()
    seen(staffed, memory_bytes=8 * 10**9)
    assert (problem["code"], problem["status"], problem["allowed"]) == ("plan-infeasible", 422, 10**8)
    assert problem["needed"] > 10**8
    assert problem["errors"][0]["pointer"] == "/distillation/training/batch_size"
    assert not plan["options"][0]["fits"]
    assert [miss["limit"] for miss in plan["options"][0]["misses"]] == ["memory"]
    assert "No effort" in plan["advice"]


def test_a_time_limit_below_one_student_is_refused_with_the_figure(staffed: Service, teacher: bytes) -> None:
    spec = with_budget(max_seconds=0.01)
    problem = problem_of(post_parts(staffed.http, [("spec", spec_text(spec)), ("teacher", teacher)]))
    assert problem["code"] == "plan-infeasible"
    assert problem["errors"][0]["pointer"] == "/distillation/budget/max_seconds"
    assert problem["needed"] > problem["allowed"] == 0.01
    plan = planned(staffed.http, spec, teacher).json()
    assert [miss["limit"] for miss in plan["options"][0]["misses"]] == ["max-seconds"]


def test_a_time_limit_has_to_pay_for_preparation_and_files_too(tmp_path: Path, teacher: bytes) -> None:
    """On this worker libraries are slow to load and files slow to write; the updates take no time."""
    with running_service(tmp_path / "data") as service:
        seen(service, faster=1e6, start_seconds=40.0, export_seconds=30.0)
        body = [("spec", spec_text(with_budget(max_seconds=50.0))), ("teacher", teacher)]
        problem = problem_of(post_parts(service.http, body))
        enough = post_parts(service.http, [("spec", spec_text(with_budget(max_seconds=100.0))), ("teacher", teacher)])
    assert (problem["code"], problem["allowed"]) == ("plan-infeasible", 50.0)
    assert problem["needed"] == pytest.approx(1.5 * 40 + 30, rel=0.1)
    assert problem["errors"][0]["pointer"] == "/distillation/budget/max_seconds"
    assert enough.status_code == 202
    assert enough.json()["estimate"][0]["seconds"] <= 100.0


def test_a_time_limit_bounds_the_estimate(staffed: Service, teacher: bytes) -> None:
    limited = planned(staffed.http, with_budget(max_seconds=150.0), teacher).json()["options"][0]
    free = planned(staffed.http, SPEC, teacher).json()["options"][0]
    assert limited["estimate"][0]["seconds"] == 150.0 < free["estimate"][0]["seconds"]


def test_a_job_longer_than_a_day_of_the_quota_is_a_warning(tmp_path: Path, teacher: bytes) -> None:
    with running_service(tmp_path / "data", DFKD_QUOTA_DEVICE_SECONDS_PER_DAY="5") as service:
        seen(service)
        plan = planned(service.http, SPEC, teacher).json()
        response = post_parts(service.http, [("spec", spec_text(SPEC)), ("teacher", teacher)])
    assert response.status_code == 202
    assert "longer-than-a-day" in {warning["code"] for warning in response.json()["warnings"]}
    assert "longer-than-a-day" in {warning["code"] for warning in plan["warnings"]}
    assert plan["options"][0]["fits"]


def test_a_job_for_another_class_of_device_has_no_estimate(staffed: Service, teacher: bytes) -> None:
    spec = {**SPEC, "device": "gpu"}
    job = post_parts(staffed.http, [("spec", spec_text(spec)), ("teacher", teacher)]).json()
    assert job["estimate"] is None
