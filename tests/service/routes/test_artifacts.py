"""Downloads: whole, partial and conditional, and always exactly the stored bytes."""

import base64
import hashlib
from collections.abc import Iterator

import httpx
import pytest

from dfkd.client import Client, Refused
from jobs.garbage_collector import collect_garbage
from tests.patience import until
from tests.servers import BUCKET
from tests.service.harness import Finished, Service, holdings, log_of, problem_of, running_service
from tests.stored import overwrite


@pytest.fixture(scope="module", params=["directory", "bucket"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that keeps its files below its data directory, and one that keeps them in a bucket."""
    place: dict[str, str] = {}
    if request.param == "bucket":
        endpoint_url = request.getfixturevalue("object_store").endpoint_url
        place = {"DFKD_ARTIFACTS_URL": f"s3://{BUCKET}/downloads", "DFKD_ARTIFACTS_ENDPOINT_URL": endpoint_url}
    data_dir = tmp_path_factory.mktemp(request.param) / "data"
    with running_service(data_dir, DFKD_SWEEP_SECONDS="3600", **place) as running:
        yield running


@pytest.fixture
def student(finished: Finished) -> str:
    return f"/jobs/{finished.id}/artifacts/student.onnx"


def test_a_file_comes_as_it_was_kept_with_its_digest(http: httpx.Client, finished: Finished) -> None:
    listed = http.get(f"/jobs/{finished.id}/artifacts").json()["artifacts"]
    assert {artifact["name"] for artifact in listed} == set(finished.files)
    for artifact in listed:
        response, content = http.get(artifact["url"]), finished.files[artifact["name"]]
        digest = hashlib.sha256(content)
        assert response.content == content
        assert artifact["sha256"] == digest.hexdigest()
        assert response.headers["etag"] == f'"{digest.hexdigest()}"'
        assert response.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
        assert response.headers["content-length"] == str(len(content)) == str(artifact["bytes"])
        assert response.headers["content-type"] == artifact["media_type"]
        assert response.headers["content-disposition"] == f'attachment; filename="{artifact["name"]}"'
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["accept-ranges"] == "bytes"


def test_head_tells_the_same_without_the_bytes(http: httpx.Client, student: str) -> None:
    head, get = http.head(student), http.get(student)
    kept = ("etag", "content-length", "content-type", "repr-digest", "content-disposition", "accept-ranges")
    assert (head.status_code, head.content) == (200, b"")
    assert [head.headers[name] for name in kept] == [get.headers[name] for name in kept]


@pytest.mark.parametrize(("asked", "part"), [("0-9", slice(10)), ("100-", slice(100, None)), ("-7", slice(-7, None))])
def test_a_range_is_served(http: httpx.Client, finished: Finished, student: str, asked: str, part: slice) -> None:
    content = finished.files["student.onnx"]
    response = http.get(student, headers={"Range": f"bytes={asked}"})
    start, stop, _ = part.indices(len(content))
    assert (response.status_code, response.content) == (206, content[part])
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    assert response.headers["content-length"] == str(stop - start)


def test_a_broken_download_is_completed_by_a_range(http: httpx.Client, finished: Finished, student: str) -> None:
    etag = http.head(student).headers["etag"]
    start = http.get(student, headers={"Range": "bytes=0-4999"}).content
    rest = http.get(student, headers={"Range": "bytes=5000-", "If-Range": etag})
    assert start + rest.content == finished.files["student.onnx"]
    other = http.get(student, headers={"Range": "bytes=5000-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, finished.files["student.onnx"])


def test_a_range_outside_the_file_is_refused(http: httpx.Client, finished: Finished, student: str) -> None:
    response = http.get(student, headers={"Range": "bytes=999999999-"})
    assert (response.status_code, problem_of(response)["code"]) == (416, "range-not-satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(finished.files['student.onnx'])}"


def test_several_ranges_mean_the_whole_file(http: httpx.Client, student: str) -> None:
    assert http.get(student, headers={"Range": "bytes=0-1,3-4"}).status_code == 200


def test_known_bytes_are_not_sent_again(http: httpx.Client, student: str) -> None:
    etag = http.head(student).headers["etag"]
    response = http.get(student, headers={"If-None-Match": etag})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)


def test_before_the_end_there_is_nothing_to_download(http: httpx.Client, running: tuple[str, int]) -> None:
    response = http.get(f"/jobs/{running[0]}/artifacts/student.onnx")
    problem = problem_of(response)
    assert (problem["status"], problem["code"], problem["state"]) == (409, "artifact-not-ready", "running")
    assert response.headers["retry-after"] == "1"
    assert http.get(f"/jobs/{running[0]}/artifacts").json() == {"artifacts": []}


@pytest.mark.parametrize(
    "name", ["student.pt", "..%2F..%2Fledger.sqlite3", "%2e%2e", "student.onnx%00", "STUDENT.ONNX"]
)
def test_a_name_is_only_ever_compared_with_names(http: httpx.Client, finished: Finished, name: str) -> None:
    response = http.get(f"/jobs/{finished.id}/artifacts/{name}")
    assert (response.status_code, problem_of(response)["code"][-9:]) == (404, "not-found")


def test_a_cancelled_job_will_never_have_files(http: httpx.Client, queued: str) -> None:
    http.post(f"/jobs/{queued}/cancel")
    response = http.get(f"/jobs/{queued}/artifacts/student.onnx")
    assert (response.status_code, problem_of(response)["code"]) == (404, "artifact-not-found")


def test_bytes_that_changed_on_disk_never_leave(service: Service, finished: Finished, student: str) -> None:
    sha256 = hashlib.sha256(finished.files["student.onnx"]).hexdigest()
    overwrite(service.artifacts, sha256, finished.files["student.onnx"][:-1] + b"!")
    response = service.http.get(student)
    assert (response.status_code, problem_of(response)["code"]) == (500, "artifact-corrupt")
    assert sha256 not in response.text
    assert "artifact corrupt" in log_of(service)
    assert service.http.get(student, headers={"Range": "bytes=0-9"}).status_code == 500


def test_a_file_that_is_gone_is_named_and_nothing_is_served_for_it(
    service: Service, finished: Finished, student: str
) -> None:
    assert service.artifacts.delete(hashlib.sha256(finished.files["student.onnx"]).hexdigest())
    response = service.http.get(student)
    assert (response.status_code, problem_of(response)["code"]) == (410, "artifact-lost")
    assert service.http.head(student).status_code == 410
    assert service.http.get(f"/jobs/{finished.id}/artifacts/report.json").status_code == 200


def test_a_teacher_that_is_gone_is_told_before_there_is_a_job_and_comes_back(service: Service, queued: str) -> None:
    teacher_id = service.http.get(f"/jobs/{queued}").json()["teacher"]["id"]
    with service.artifacts.borrowed(teacher_id) as path:
        content = path.read_bytes()
    service.artifacts.delete(teacher_id)
    spec = {"student": {"architecture": "lenet5_half"}, "teacher": {"id": teacher_id}}
    response = service.http.post("/jobs", json=spec)
    assert (response.status_code, problem_of(response)["code"]) == (410, "artifact-lost")
    headers = {"Content-Type": "application/octet-stream"}
    assert service.http.post("/teachers", content=content, headers=headers).status_code == 200
    assert service.http.post("/jobs", json=spec).status_code == 202


def test_files_expire_with_the_retention_period(service: Service, finished: Finished, student: str) -> None:
    assert service.http.get(student).status_code == 200
    acts = collect_garbage(service.store, service.artifacts, retention_seconds=0.0, quarantine_seconds=0.0)
    assert ("expire", finished.id) in {(act.verb, act.what) for act in acts}
    response = service.http.get(student)
    assert (response.status_code, problem_of(response)["code"]) == (410, "artifact-expired")
    assert service.http.get(f"/jobs/{finished.id}/artifacts").json() == {"artifacts": []}
    assert service.http.get(f"/jobs/{finished.id}/artifacts/student.pt").status_code == 404
    with Client(service.url) as client, pytest.raises(Refused, match="artifact-expired"):
        client.download(finished.id, service.settings.data_dir / "downloads")
    last = service.http.get(f"/jobs/{finished.id}/events").json()["events"][-1]
    assert (last["kind"], last["data"]["artifacts"]) == ("expired", sorted(finished.files))


def test_a_ready_service_can_keep_files(service: Service) -> None:
    assert service.http.get("/readyz").json()["checks"]["storage"] == "ok"


def test_a_download_that_breaks_off_leaves_no_open_file(service: Service, student: str) -> None:
    before = holdings(service).open_files
    with service.http.stream("GET", student) as response:
        next(response.iter_raw(1000))
    assert service.http.get(student).status_code == 200
    until(lambda: holdings(service).open_files == before)
