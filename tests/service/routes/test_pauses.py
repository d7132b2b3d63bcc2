"""/jobs/{id}/pause and /jobs/{id}/resume, and their methods of the client and commands."""

import httpx
import pytest

from dfkd import Client
from tests.service.harness import Finished, Service, problem_of


def test_a_queued_job_is_paused_and_resumed(http: httpx.Client, queued: str) -> None:
    job = http.get(f"/jobs/{queued}").json()
    paused = http.post(job["links"]["pause"])
    assert (paused.status_code, paused.json()["state"], paused.json()["terminal"]) == (202, "paused", False)
    assert paused.json()["queue_position"] is None
    assert "retry-after" in paused.headers
    assert http.post(job["links"]["pause"]).status_code == 200
    assert queued in {job["id"] for job in http.get("/jobs?state=paused&limit=100").json()["jobs"]}
    resumed = http.post(job["links"]["resume"])
    assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")
    assert resumed.json()["queue_position"] >= 1
    assert http.post(job["links"]["resume"]).status_code == 200


def test_a_running_job_is_pausing_until_its_worker_has_stopped(service: Service, running: tuple[str, int]) -> None:
    path = f"/jobs/{running[0]}"
    asked = service.http.post(f"{path}/pause")
    assert (asked.status_code, asked.json()["state"]) == (202, "pausing")
    assert service.http.post(f"{path}/pause").status_code == 200
    assert service.store.paused(*running)
    assert service.http.get(path).json()["state"] == "paused"
    cancelled = service.http.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")


def test_a_pending_pause_is_taken_back(service: Service, running: tuple[str, int]) -> None:
    path = f"/jobs/{running[0]}"
    service.http.post(f"{path}/pause")
    resumed = service.http.post(f"{path}/resume")
    assert (resumed.status_code, resumed.json()["state"]) == (202, "running")
    assert not service.store.paused(*running)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_what_has_ended_stays_as_it_is(http: httpx.Client, finished: Finished, verb: str) -> None:
    problem = problem_of(http.post(f"/jobs/{finished.id}/{verb}"))
    assert (problem["status"], problem["code"], problem["state"]) == (409, "invalid-transition", "succeeded")
    assert problem["allowed"] == ["queued", "running", "paused"]
    assert problem_of(http.post(f"/jobs/{'0' * 8}-0000-4000-8000-{'0' * 12}/{verb}"))["code"] == "job-not-found"


def test_a_key_tells_a_repeated_pause_from_a_new_one(http: httpx.Client, queued: str) -> None:
    key = {"Idempotency-Key": f"pause-{queued}"}
    first = http.post(f"/jobs/{queued}/pause", headers=key)
    http.post(f"/jobs/{queued}/resume")
    again = http.post(f"/jobs/{queued}/pause", headers=key)  # late, from a network that holds things back
    assert (again.status_code, again.content) == (202, first.content)
    assert http.get(f"/jobs/{queued}").json()["state"] == "queued"


def test_the_client_pauses_and_resumes(service: Service, queued: str) -> None:
    with Client(service.url, patience_seconds=0) as client:
        assert client.pause(queued).state == "paused"
        assert client.resume(queued).state == "queued"
