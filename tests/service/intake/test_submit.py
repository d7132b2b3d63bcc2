"""POST /jobs and POST /teachers: what is accepted."""

import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.builders import onnx_teacher
from tests.service.conftest import SPEC
from tests.service.harness import Service, holdings, multipart, post_multipart, post_parts, spec_text


def test_a_job_is_accepted_and_echoes_every_default(http: httpx.Client, teacher: bytes) -> None:
    response = post_parts(http, [("spec", spec_text({**SPEC, "name": "first"})), ("teacher", teacher)])
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert response.headers["retry-after"] == "1"
    assert (job["state"], job["terminal"], job["name"], job["attempt"]) == ("queued", False, "first", 0)
    assert job["spec"]["distillation"]["memory_options"]["latent_dim"] > 0
    assert job["spec"]["teacher"]["format"] == "onnx"
    assert job["spec"]["teacher"]["input"]["shape"] == [1, 32, 32]
    assert job["spec"]["teacher"]["num_classes"] == 10
    assert job["teacher"]["id"] == hashlib.sha256(teacher).hexdigest()
    assert "input-range-unknown" in {warning["code"] for warning in job["warnings"]}
    shown = http.get(response.headers["location"]).json()
    assert {**shown, "durations": 0} == {**job, "durations": 0}


def test_the_file_is_kept_byte_for_byte(service: Service, teacher: bytes) -> None:
    job = post_parts(service.http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).json()
    with service.artifacts.open(job["teacher"]["id"]) as file:
        assert file.read() == teacher


def test_the_parts_may_come_in_any_order_and_in_any_pieces(http: httpx.Client, teacher: bytes) -> None:
    body = multipart([("teacher", teacher), ("spec", spec_text(SPEC))])

    def pieces() -> Iterator[bytes]:
        yield from (body[start : start + 7919] for start in range(0, len(body), 7919))

    assert post_multipart(http, pieces()).status_code == 202


def test_a_teacher_is_uploaded_once_and_used_by_its_id(http: httpx.Client) -> None:
    teacher = onnx_teacher(seed=11)
    headers = {"Content-Type": "application/octet-stream"}
    first, second = (http.post("/teachers", content=teacher, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json() == http.get(first.headers["location"]).json()
    assert first.json()["inspection"]["num_classes"] == 10
    response = http.post("/jobs", json={**SPEC, "teacher": {"id": first.json()["id"]}})
    assert response.status_code == 202
    assert response.json()["teacher"]["id"] == hashlib.sha256(teacher).hexdigest()
    assert response.json()["spec"]["teacher"]["input"]["shape"] == [1, 32, 32]


def test_a_teacher_says_which_methods_it_can_serve_and_how_to_improve_it(http: httpx.Client) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    shown = http.post("/teachers", content=onnx_teacher(seed=31), headers=headers).json()
    methods, inspection = shown["methods"], shown["inspection"]
    assert methods["auto"]["method"] in methods["served"]
    assert {method["name"] for method in methods["unserved"]} == {"ddad"}
    assert "BatchNorm" in methods["unserved"][0]["because"]
    assert inspection["activation_bytes"] > 4 * 10
    assert inspection["re_export"] is None
    assert shown["depth"] is None


def test_what_running_a_teacher_showed_stands_beside_its_inspection(service: Service, http: httpx.Client) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    first = http.post("/teachers", content=onnx_teacher(seed=32), headers=headers).json()
    before = http.post("/jobs", json={**SPEC, "teacher": {"id": first["id"]}}).json()
    service.store.keep_depth(before["id"], {"passed": True, "measured": {"gradient_error": 1e-9}})
    shown = http.get(f"/teachers/{first['id']}").json()
    assert shown == {**first, "depth": {"passed": True, "measured": {"gradient_error": 1e-9}}}
    job = http.post("/jobs", json={**SPEC, "teacher": {"id": first["id"]}})
    assert (job.status_code, job.json()["teacher"]) == (202, shown)


def test_both_ways_give_the_same_spec(http: httpx.Client, teacher: bytes) -> None:
    by_part = post_parts(http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).json()
    by_id = http.post("/jobs", json={**SPEC, "teacher": {"id": by_part["teacher"]["id"]}}).json()
    assert by_part["spec"] == by_id["spec"]
    assert by_part["warnings"] == by_id["warnings"]


def test_the_echoed_spec_can_be_sent_again(http: httpx.Client, teacher: bytes) -> None:
    spec = {**SPEC, "distillation": {"seed": 7, "memory": "reservoir"}, "labels": {"a": "b"}}
    first = post_parts(http, [("spec", spec_text(spec)), ("teacher", teacher)]).json()["spec"]
    again = post_parts(http, [("spec", json.dumps(first).encode()), ("teacher", teacher)]).json()["spec"]
    assert first == again


@pytest.mark.parametrize("form", ["hexadecimal", "repr"])
def test_a_declared_digest_is_compared(http: httpx.Client, teacher: bytes, form: str) -> None:
    def declared(content: bytes) -> dict[str, str]:
        digest = hashlib.sha256(content)
        if form == "hexadecimal":
            return {"X-Content-SHA256": digest.hexdigest().upper()}
        return {"Repr-Digest": f"sha-512=:AAAA:, sha-256=:{base64.b64encode(digest.digest()).decode()}:"}

    headers = {"Content-Type": "application/octet-stream"}
    assert http.post("/teachers", content=teacher, headers={**headers, **declared(teacher)}).is_success
    wrong = http.post("/teachers", content=teacher, headers={**headers, **declared(b"other")})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "digest-mismatch")


def test_an_upload_of_exactly_the_limit_is_read(service: Service) -> None:
    limit = 1_000_000
    headers = {"Content-Type": "application/octet-stream"}
    padded = onnx_teacher()
    at_limit = padded + b"\x00" * (limit - len(padded))
    refused = service.http.post("/teachers", content=at_limit, headers=headers)
    assert refused.json()["code"] == "teacher-invalid"  # read to its end, and then it is no model
    above = service.http.post("/teachers", content=iter([at_limit, b"x"]), headers=headers)
    assert (above.status_code, above.json()["max_bytes"]) == (413, limit)


def test_the_same_teacher_may_arrive_many_times_at_once(service: Service) -> None:
    teacher = onnx_teacher(seed=12)
    before = holdings(service)
    body = [("spec", spec_text(SPEC)), ("teacher", teacher)]
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: post_parts(service.http, body), range(4)))
    assert [response.status_code for response in responses] == [202] * 4
    after = holdings(service)
    assert after.rows["teachers"] == before.rows["teachers"] + 1
    assert after.rows["jobs"] == before.rows["jobs"] + 4
    assert len(after.files) == len(before.files) + 1


def test_a_teacher_says_how_large_its_narrowed_copies_are(http: httpx.Client) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    answer = http.post("/teachers", content=onnx_teacher(seed=12), headers=headers).json()
    assert answer["narrowed"]["possible"] is True
    sizes = {size["width"]: size for size in answer["narrowed"]["sizes"]}
    assert sizes[0.25]["parameters"] < sizes[0.5]["parameters"] < answer["inspection"]["parameters"]
    assert "narrowing" not in answer["inspection"]


def test_what_cannot_be_narrowed_is_refused_before_the_job(http: httpx.Client) -> None:
    weight = numpy_helper.from_array(np.ones((10, 1024), np.float32), "fc.weight")
    nodes = [
        helper.make_node("Flatten", ["images"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "fc.weight"], ["logits"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 1, 32, 32]), ("logits", ["batch", 10]))
    ]
    graph = helper.make_graph(nodes, "linear", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = {**SPEC, "student": {"architecture": "teacher", "width": 0.5}}
    answer = post_parts(http, [("spec", spec_text(spec)), ("teacher", model.SerializeToString())])
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "student-infeasible")
    assert problem["errors"][0]["pointer"] == "/student/architecture"
    assert "the teacher's graph cannot be narrowed" in problem["detail"]
    assert "dfkd students" in problem["hint"]
