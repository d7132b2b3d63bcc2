"""Downloads: whole, in part, conditional, and never anything but the bytes that were kept."""

import base64
import hashlib

import httpx
import pytest

from tests.service.harness import Finished, Service, holdings, problem_of


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
    path = service.artifacts.path(sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    response = service.http.get(student)
    assert (response.status_code, problem_of(response)["code"]) == (500, "artifact-corrupt")
    assert sha256 not in response.text


def test_a_download_that_breaks_off_leaves_no_open_file(service: Service, student: str) -> None:
    before = holdings(service).open_files
    with service.http.stream("GET", student) as response:
        next(response.iter_raw(1000))
    assert service.http.get(student).status_code == 200
    assert holdings(service).open_files == before
