"""The matrix: every operation × {own, foreign, absent, deleted} × {read, write}; foreign objects look absent."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dfkd.client import Client, Refused
from jobs.identity import Caller
from jobs.models import ArtifactRef, BestStudent
from tests.builders import onnx_teacher
from tests.patience import PATIENCE, until
from tests.service.conftest import SPEC, claim
from tests.service.guarded import Guarded, told
from tests.service.harness import post_parts, problem_of, spec_text
from tests.service.middleware.test_authentication import EXPECTED

OCTETS = {"Content-Type": "application/octet-stream"}
OBJECTS = ("own", "foreign", "absent", "deleted")
PER_OBJECT = sorted(key for key in EXPECTED if "{job_id}" in key[1] or "{teacher_id}" in key[1])
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/jobs/{job_id}/continue"): {"distillation": {"budget": {"steps": 100_000}}},
}


@dataclass(frozen=True, slots=True)
class Ids:
    """A job that has ended and its teacher."""

    job: str
    teacher: str


class Estate:
    """What acme has, as umbrella and acme itself meet it."""

    def __init__(self, guarded: Guarded, tmp_path: Path) -> None:
        self.guarded = guarded
        self._tmp_path = tmp_path
        self._teachers = 0
        self.shared = self.job("acme")

    def job(self, tenant: str) -> Ids:
        """A finished job of a tenant, with a student, for a teacher that nobody else has."""
        store, self._teachers = self.guarded.service.store, self._teachers + 1
        teacher = onnx_teacher(seed=self._teachers)
        with self.guarded.http(tenant) as http:
            found = post_parts(http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).json()
        fence = claim(self.guarded.service, found["id"])
        path = self._tmp_path / "student"
        path.write_bytes(found["id"].encode())
        sha256, size = self.guarded.service.artifacts.put_file(path)
        assert store.record_checkpoint(found["id"], fence, step=1, sha256=sha256, num_bytes=7)
        file = ArtifactRef(name="student.onnx", sha256=sha256, bytes=size, media_type="application/octet-stream")
        assert store.succeed(found["id"], fence, artifacts=[file], best=BestStudent(step=1, agreement=0.9))
        return Ids(found["id"], found["teacher"]["id"])

    def ids(self, which: str) -> Ids:
        """Ids for a caller of acme."""
        if which == "own":
            return self.job("acme")
        if which == "foreign":
            return self.job("umbrella")
        if which == "deleted":
            ended = self.job("acme")
            with self.guarded.http("acme") as http:
                assert http.delete(f"/jobs/{ended.job}").status_code == 200
            return ended
        return Ids(str(uuid.uuid4()), "0" * 64)


@pytest.fixture(scope="module")
def estate(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Estate:
    return Estate(guarded, tmp_path_factory.mktemp("estate"))


def asked(http: httpx.Client, method: str, template: str, ids: Ids) -> httpx.Response:
    path = template.format(job_id=ids.job, teacher_id=ids.teacher, name="student.onnx")
    return http.request(method, path, json=BODIES.get((method, template)))


def refusal(response: httpx.Response) -> Any:
    """Everything a refusal tells; a HEAD has no body."""
    if response.request.method == "HEAD":
        return response.status_code, {name for name in response.headers if name != "content-length"}
    return told(response)


def test_the_matrix(estate: Estate) -> None:
    wrong = []
    with estate.guarded.http("acme", "read") as reader, estate.guarded.http("acme", "write") as writer:
        ids = {which: estate.ids(which) for which in OBJECTS}
        for method, template in sorted(PER_OBJECT, key=lambda key: (key[0] == "DELETE", "{job_id}" in key[1])):
            needs_write = EXPECTED[method, template] == "jobs:write"
            able, unable = (writer, reader) if needs_write else (reader, writer)
            answers = {which: asked(able, method, template, ids[which]) for which in OBJECTS}
            missing = {which: refusal(answers[which]) for which in OBJECTS[1:]}
            if answers["own"].status_code in {401, 403, 404} or answers["own"].status_code >= 500:
                wrong.append(f"own: {method} {template} {answers['own'].status_code}")
            if missing["absent"][0] != 404 or missing["foreign"] != missing["absent"] != missing["deleted"]:
                wrong.append(f"not alike: {method} {template} {missing}")
            denied = [asked(unable, method, template, ids[which]) for which in OBJECTS]
            if {answer.status_code for answer in denied} != {403}:
                wrong.append(f"without the scope: {method} {template}")
            if len({repr(refusal(answer)) for answer in denied}) != 1:
                wrong.append(f"a 403 tells what there is: {method} {template}")
    assert len(PER_OBJECT) == 13
    assert wrong == []
    with estate.guarded.http("umbrella") as owner:
        assert owner.get(f"/jobs/{ids['foreign'].job}").json()["state"] == "succeeded"


def test_a_list_and_its_pages_hold_ones_own_jobs(estate: Estate) -> None:
    theirs = estate.job("umbrella").job
    with estate.guarded.http("acme") as http, estate.guarded.http("umbrella") as other:
        seen, cursor = [], other.get("/jobs?limit=1").json()["next_cursor"]
        while cursor is not None:
            page = http.get("/jobs", params={"limit": 100, "cursor": cursor}).json()
            seen, cursor = seen + [job["id"] for job in page["jobs"]], page["next_cursor"]
        assert estate.shared.job in seen
        assert theirs not in seen
        assert theirs not in http.get("/jobs?limit=100").text


def test_a_teacher_is_not_had_by_knowing_its_digest(estate: Estate) -> None:
    request = {**SPEC, "teacher": {"id": estate.shared.teacher}}
    absent = {**SPEC, "teacher": {"id": "0" * 64}}
    with estate.guarded.http("umbrella") as http:
        refused, unknown = http.post("/jobs", json=request), http.post("/jobs", json=absent)
    assert problem_of(refused)["code"] == "teacher-not-found"
    assert told(refused) == told(unknown)


def test_two_tenants_with_one_file_do_not_learn_of_each_other(estate: Estate) -> None:
    teacher = onnx_teacher(seed=1000)
    with estate.guarded.http("acme") as ours, estate.guarded.http("umbrella") as theirs:
        blobs = sum(1 for _ in estate.guarded.service.artifacts.digests())
        first = ours.post("/teachers", content=teacher, headers=OCTETS)
        second = theirs.post("/teachers", content=teacher, headers=OCTETS)
        again = theirs.post("/teachers", content=teacher, headers=OCTETS)
        assert sum(1 for _ in estate.guarded.service.artifacts.digests()) == blobs + 1
        assert (first.status_code, second.status_code, again.status_code) == (201, 201, 200)
        assert second.json() == again.json()
        assert second.json()["created_at"] > first.json()["created_at"]
        named = {**SPEC, "teacher": {"id": second.json()["id"]}}
        job = theirs.post("/jobs", json=named)
        assert job.json()["teacher"] == second.json()
        assert ours.get(f"/teachers/{first.json()['id']}").json() == first.json()
        theirs.post(f"/jobs/{job.json()['id']}/cancel")


def test_what_one_tenant_says_of_its_file_the_other_is_not_told(estate: Estate) -> None:
    teacher = onnx_teacher(seed=1001)
    shaped = {**SPEC, "teacher": {"input": {"shape": [1, 32, 32]}}}
    with estate.guarded.http("acme") as ours, estate.guarded.http("umbrella") as theirs:
        job = post_parts(ours, [("spec", spec_text(shaped)), ("teacher", teacher)]).json()
        ours.post(f"/jobs/{job['id']}/cancel")
        seen = theirs.post("/teachers", content=teacher, headers=OCTETS).json()
    assert job["teacher"]["inspection"]["told_shape"] == [1, 32, 32]
    assert seen["inspection"]["told_shape"] is None


def test_a_tenant_cannot_be_said_in_the_request(estate: Estate) -> None:
    with estate.guarded.http("acme") as http:
        spec = json.dumps({**SPEC, "tenant": "umbrella"}).encode()
        refused = post_parts(http, [("spec", spec), ("teacher", onnx_teacher())])
        error = problem_of(refused)["errors"][0]
        assert (error["pointer"], error["detail"].partition(";")[0]) == ("/tenant", "unknown key")
        assert http.get("/jobs?tenant=umbrella").status_code == 422
        assert http.get(f"/jobs/{estate.shared.job}", headers={"X-Tenant": "umbrella"}).status_code == 200


def test_a_stream_ends_when_its_key_is_revoked(estate: Estate) -> None:
    keys = estate.guarded.service.store.api_keys
    made, key = keys.create(Caller("acme"))
    with estate.guarded.http("acme") as http:
        job = post_parts(http, [("spec", spec_text(SPEC)), ("teacher", onnx_teacher())]).json()["id"]
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {key}"}
        until(lambda: http.get(f"/jobs/{job}", headers=headers).status_code == 200)  # the service has heard of the key
        with http.stream("GET", f"/jobs/{job}/events", headers=headers) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("retry")
            keys.revoke(made.id)
            assert any("created" in line for line in lines)
        http.post(f"/jobs/{job}/cancel")


def test_the_client_sends_its_key_and_does_not_ask_twice_when_it_is_refused(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded, path = estate.guarded, tmp_path / "teacher.onnx"
    path.write_bytes(onnx_teacher())
    monkeypatch.setenv("DFKD_API_KEY", guarded.keys["acme", "both"])
    with Client(guarded.service.url) as client:
        client.cancel(client.submit(path, SPEC).id)
        shown = [repr(vars(part)) for part in (client, client._transport, client._transport.http)]
        assert guarded.keys["acme", "both"] not in "".join(shown)
    monkeypatch.setenv("DFKD_API_KEY", "dfkd_wrong")
    for key, status in ((None, 401), (guarded.keys["acme", "read"], 403)):
        with Client(guarded.service.url, api_key=key, patience_seconds=2 * PATIENCE) as client:
            with pytest.raises(Refused) as caught:
                client.submit(path, SPEC)
            assert caught.value.problem.status == status
