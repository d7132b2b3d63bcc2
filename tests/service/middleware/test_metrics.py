"""GET /metrics: Prometheus' format, the ledger's figures, and what this process counts."""

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from jobs.models import ArtifactRef
from tests.builders import digest
from tests.service.conftest import SPEC, claim
from tests.service.harness import Service, eventually, post_parts, running_service, spec_text

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(http: httpx.Client) -> Samples:
    """Every sample, by name and labels."""
    response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def test_jobs_and_workers_are_told_from_the_ledger(service: Service, queued: str) -> None:
    service.store.worker_seen("w", host="here", slots=3, device="cpu")
    samples = scraped(service.http)
    depth = service.store.statistics(worker_seconds=60.0).jobs
    assert value(samples, "dfkd_jobs", state="queued") == depth["queued"] > 0
    assert value(samples, "dfkd_queue_depth", spec_version="3", device_class="any") == depth["queued"]
    assert value(samples, "dfkd_queue_oldest_age_seconds", spec_version="3", device_class="any") > 0
    assert value(samples, "dfkd_job_events", kind="created") == sum(depth.values())
    assert value(samples, "dfkd_worker_slots", device="cpu") == 3
    assert value(samples, "dfkd_ledger_up") == 1
    service.store.worker_gone("w")
    assert value(scraped(service.http), "dfkd_workers", device="cpu") == 0


def test_stored_bytes_are_reported_by_kind(service: Service, queued: str) -> None:
    before = service.store.statistics(worker_seconds=60.0).stored_bytes
    fence = claim(service, queued)
    for step, num_bytes in ((1, 500), (2, 1000)):
        sha256 = digest(f"{queued} at {step}")
        assert service.store.record_checkpoint(queued, fence, step=step, sha256=sha256, num_bytes=num_bytes)
    reference = ArtifactRef(name="student.onnx", sha256=digest(queued), bytes=70, media_type="x/y")
    assert service.store.succeed(queued, fence, artifacts=[reference])
    samples = scraped(service.http)
    for kind, added in (("teacher", 0), ("artifact", 70), ("checkpoint", 1500)):
        assert value(samples, "dfkd_stored_bytes", kind=kind) == before[kind] + added


def test_requests_are_counted_by_route_and_never_by_what_was_asked_for(http: httpx.Client, queued: str) -> None:
    before = scraped(http)
    for path in (f"/jobs/{queued}", "/jobs/none", "/secret-path", "/docs"):
        http.get(path)
    http.request("BREW", "/jobs")
    after = scraped(http)

    def rise(**labels: str) -> float:
        name = "dfkd_http_requests_total"
        return value(after, name, **labels) - value(before, name, **labels)

    assert rise(method="GET", route="/jobs/{job_id}", status="200") == 1
    assert rise(method="GET", route="/jobs/{job_id}", status="404") == 1
    assert rise(method="GET", route="other", status="404") == 1
    assert rise(method="GET", route="other", status="200") == 1
    assert rise(method="other", route="/jobs", status="405") == 1
    assert value(after, "dfkd_http_request_seconds_count", method="GET", route="/jobs/{job_id}") >= 2
    assert "secret" not in str(after)
    assert "BREW" not in str(after)


def test_refused_uploads_are_counted_by_code(http: httpx.Client, teacher: bytes) -> None:
    before = scraped(http)
    headers = {"Content-Type": "application/octet-stream"}
    assert http.post("/teachers", content=b"\x80\x04pickle", headers=headers).status_code == 415
    assert post_parts(http, [("spec", b"{"), ("teacher", teacher)]).status_code == 400
    assert post_parts(http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).status_code == 202
    assert http.post("/jobs/none/cancel").status_code == 404
    after = scraped(http)
    name = "dfkd_upload_rejected_total"
    rises = {key: after[key] - before.get(key, 0) for key in after if key[0] == name}
    changed = {dict(labels)["code"]: rise for (_, labels), rise in rises.items() if rise}
    assert changed == {"format-unsupported": 1, "malformed-json": 1}


def test_the_event_loop_is_watched(http: httpx.Client) -> None:
    assert eventually(lambda: value(scraped(http), "dfkd_event_loop_lag_seconds_count") > 0)


def test_without_its_database_the_process_still_tells_what_it_counts(tmp_path: Path) -> None:
    with running_service(tmp_path / "data") as service:
        with closing(sqlite3.connect(tmp_path / "data" / "ledger.sqlite3", isolation_level=None)) as ledger:
            ledger.execute("ALTER TABLE jobs RENAME TO elsewhere")
            samples = scraped(service.http)
            ledger.execute("ALTER TABLE elsewhere RENAME TO jobs")
        assert value(samples, "dfkd_ledger_up") == 0
        assert value(samples, "dfkd_http_requests_total", method="GET", route="/healthz", status="200") >= 1
        assert not any(name == "dfkd_jobs" for name, _ in samples)
        assert value(scraped(service.http), "dfkd_ledger_up") == 1
