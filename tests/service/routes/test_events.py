"""A job's history, as pages and as a stream."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.patience import PATIENCE, until
from tests.service.conftest import SPEC
from tests.service.harness import Finished, Service, post_parts, problem_of, running_service, spec_text

STREAM = {"Accept": "text/event-stream"}


def stream(http: httpx.Client, path: str, **headers: str) -> list[dict[str, Any]]:
    """All events of a stream that ends."""
    with http.stream("GET", path, headers={**STREAM, **headers}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = list(response.iter_lines())
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [f"id: {event['seq']}" for event in events] == [line for line in lines if line.startswith("id: ")]
    assert [f"event: {event['kind']}" for event in events] == [line for line in lines if line.startswith("event: ")]
    return events


def test_the_history_is_read_in_pages(http: httpx.Client, finished: Finished) -> None:
    path = f"/jobs/{finished.id}/events"
    whole = http.get(path).json()
    assert [event["seq"] for event in whole["events"]] == list(range(1, len(whole["events"]) + 1))
    assert [event["kind"] for event in whole["events"]] == ["created", "claimed", "succeeded"]
    page = http.get(path, params={"after": 1, "limit": 1}).json()
    assert page["events"] == whole["events"][1:2]
    last = http.get(path, params={"after": whole["last_seq"]}).json()
    assert last == {"events": [], "last_seq": whole["last_seq"], "terminal": True}


def test_the_stream_of_a_finished_job_tells_all_and_ends(http: httpx.Client, finished: Finished) -> None:
    path = f"/jobs/{finished.id}/events"
    assert stream(http, path) == http.get(path).json()["events"]
    assert stream(http, path, **{"Last-Event-ID": "2"}) == http.get(f"{path}?after=2").json()["events"]


def test_the_stream_of_a_live_job_follows_it_to_its_end(service: Service, running: tuple[str, int]) -> None:
    def work() -> None:
        service.store.record(*running, events=[("stage", {"stage": "distill"})])
        service.http.post(f"/jobs/{running[0]}/cancel")
        service.store.cancelled(*running)

    worker = threading.Timer(0.3, work)
    worker.start()
    kinds = [event["kind"] for event in stream(service.http, f"/jobs/{running[0]}/events")]
    worker.join()
    assert kinds == ["created", "claimed", "stage", "cancel-requested", "cancelled"]


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=1001"])
def test_a_wrong_page_is_refused(http: httpx.Client, queued: str, query: str) -> None:
    response = http.get(f"/jobs/{queued}/events?{query}")
    assert (response.status_code, problem_of(response)["errors"][0]["parameter"]) == (422, query.partition("=")[0])


def test_a_wrong_last_event_id_is_refused(http: httpx.Client, queued: str) -> None:
    response = http.get(f"/jobs/{queued}/events", headers={**STREAM, "Last-Event-ID": "x"})
    assert (response.status_code, problem_of(response)["errors"][0]["parameter"]) == (422, "last-event-id")


def test_a_stream_ends_when_the_service_stops_and_does_not_hold_it_up(tmp_path: Path, teacher: bytes) -> None:
    lines: list[str] = []

    def follow(url: str) -> None:
        with httpx.stream("GET", url, headers=STREAM, timeout=PATIENCE) as response:
            for line in response.iter_lines():
                lines.append(line)

    with running_service(tmp_path / "data") as service:
        path = post_parts(service.http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).headers["location"]
        follower = threading.Thread(target=follow, args=[f"{service.url}{path}/events"])
        follower.start()
        until(lambda: "event: created" in lines)
        psutil.Process(service.pid).terminate()
        follower.join(PATIENCE)
        assert not follower.is_alive()
    assert (tmp_path / "data.log").read_text() == ""
