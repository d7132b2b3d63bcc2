"""The Python client against the real service, over a network that loses and damages data."""

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dfkd.client import Client, Damaged, Refused, Unreachable, WaitTimeout
from dfkd.wire.job import JobView
from jobs.models import Progress
from jobs.quota_limits import Quota
from tests.patience import PATIENCE, until
from tests.service.conftest import SPEC, claim
from tests.service.harness import Finished, Service, running_service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, patience_seconds=0) as opened:
        yield opened


@pytest.fixture
def teacher_file(teacher: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(teacher)
    return path


def test_a_file_and_a_known_teacher_can_both_be_submitted(client: Client, teacher_file: Path) -> None:
    first = client.submit(teacher_file, {**SPEC, "name": "détecteur"})
    assert (first.state, first.name) == ("queued", "détecteur")
    assert first.teacher.id == hashlib.sha256(teacher_file.read_bytes()).hexdigest()
    second = client.submit(client.upload(teacher_file).id, SPEC)
    assert second.teacher == first.teacher == client.teacher(first.teacher.id)
    assert client.jobs(limit=2).jobs[0].id == second.id


def test_a_refusal_carries_the_problem(client: Client, teacher_file: Path) -> None:
    with pytest.raises(Refused) as caught:
        client.submit(teacher_file, {"student": {"architecture": "lenet5_half", "widht": 1}})
    problem = caught.value.problem
    assert (problem.status, problem.code) == (422, "validation-error")
    assert problem.errors is not None
    assert problem.errors[0].pointer == "/student/widht"
    assert "/student/widht: unknown key; did you mean width?" in str(caught.value)


def test_a_wrong_id_never_leaves_its_place_in_the_path(client: Client) -> None:
    for job_id in ("../healthz", "x/y", "?a=b", "#", ""):
        with pytest.raises((Refused, Unreachable)):
            client.job(job_id)


def test_wait_follows_a_job_to_its_end_whichever_it_is(service: Service, client: Client, queued: str) -> None:
    seen: list[JobView] = []

    def work() -> None:
        fence = claim(service, queued)
        service.store.record(queued, fence, progress=Progress(stage="distill", fraction=0.5, step=1, total_steps=2))
        until(lambda: "distill" in {update.stage for update in seen})
        service.store.request_cancel(queued)
        service.store.cancelled(queued, fence)

    worker = threading.Thread(target=work)
    worker.start()
    job = client.wait(queued, timeout_seconds=PATIENCE, on_update=seen.append)
    worker.join()
    assert (job.state, job.terminal) == ("cancelled", True)
    assert "distill" in {update.stage for update in seen}
    revisions = [update.revision for update in seen]
    assert revisions == sorted(set(revisions))
    assert [event.kind for event in client.events(queued)][-1] == "cancelled"


def test_wait_gives_up_when_the_time_is_up_and_the_job_goes_on(client: Client, queued: str) -> None:
    with pytest.raises(WaitTimeout) as caught:
        client.wait(queued, timeout_seconds=0.3)
    assert caught.value.job.state == client.job(queued).state == "queued"


def test_wait_sits_out_a_restart_of_the_service(tmp_path: Path, teacher_file: Path) -> None:
    with running_service(tmp_path / "data") as first:
        port = int(first.url.rpartition(":")[2])
        with Client(first.url) as client:
            job_id = client.submit(teacher_file, SPEC).id
    found: list[JobView] = []
    with Client(first.url, patience_seconds=PATIENCE) as client:
        waiting = threading.Thread(target=lambda: found.append(client.wait(job_id, timeout_seconds=PATIENCE)))
        waiting.start()
        time.sleep(0.5)
        with running_service(tmp_path / "data", port=port) as second:
            second.store.request_cancel(job_id)
            waiting.join(PATIENCE)
    assert [job.state for job in found] == ["cancelled"]


def test_a_service_that_is_not_there_is_told_at_once_when_patience_is_none() -> None:
    with Client("http://127.0.0.1:9", patience_seconds=0) as client:
        for call in (lambda: client.job("x"), lambda: client.cancel("x"), lambda: client.submit("0" * 64, SPEC)):
            with pytest.raises(Unreachable):
                call()


def test_a_cancelled_job_can_be_deleted(client: Client, queued: str) -> None:
    assert client.cancel(queued).state == "cancelled"
    client.delete(queued)
    with pytest.raises(Refused, match="job-not-found"):
        client.job(queued)


def test_every_file_is_downloaded_and_nothing_else_is_left(client: Client, finished: Finished, tmp_path: Path) -> None:
    paths = client.download(finished.id, tmp_path / "deep" / "out")
    assert {path.name: path.read_bytes() for path in paths} == finished.files
    assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == set(finished.files)


@contextmanager
def damaging_proxy(url: str) -> Iterator[str]:
    """A proxy that passes everything on and inverts one bit of every download."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = httpx.get(url + self.path, timeout=PATIENCE).content
            if "/artifacts/" in self.path:
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_damaged_download_is_noticed_and_not_kept(service: Service, finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("from before")
    with damaging_proxy(service.url) as url, Client(url, patience_seconds=0) as client, pytest.raises(Damaged):
        client.download(finished.id, tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"report.json": "from before"}


def test_the_menu_is_read_with_the_shape_that_was_asked_for(client: Client) -> None:
    menu = client.menu(input_shape=(1, 32, 32), num_classes=7)
    assert (menu.students_for.channels, menu.students_for.num_classes) == (1, 7)
    assert client.students() == client.menu().students
    assert "worker" in client.ready().missing


def test_one_asks_for_ones_quota(client: Client) -> None:
    assert client.quota().queued_jobs.limit is None


def test_a_told_time_is_waited_for_if_it_is_short(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", DFKD_RATE_LIMIT="1/2 second") as service, Client(service.url) as client:
        began_at = time.monotonic()
        for _ in range(3):
            assert client.quota().tenant == "default"
        assert time.monotonic() - began_at >= 1.9  # two windows had to end


def test_a_told_time_that_is_too_long_is_a_refusal_at_once(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", DFKD_RATE_LIMIT="1/day") as service, Client(service.url) as client:
        client.quota()
        with pytest.raises(Refused) as caught:
            client.cancel("x")
    assert caught.value.problem.code == "rate-limited"


def test_a_quota_without_a_time_is_a_refusal_at_once(service: Service, client: Client, teacher_file: Path) -> None:
    teacher_id = client.upload(teacher_file).id
    service.store.tenants.limit("default", {Quota.STORED_BYTES: 1})
    try:
        with Client(service.url) as patient, pytest.raises(Refused) as caught:
            patient.submit(teacher_id, SPEC)
    finally:
        service.store.tenants.limit("default", {Quota.STORED_BYTES: None})
    assert (caught.value.problem.code, caught.value.problem.quota) == ("quota-exceeded", "stored_bytes")
