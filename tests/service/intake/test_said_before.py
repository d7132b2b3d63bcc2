"""POST /teachers with a spec: what is said with the upload is checked, kept, and holds for jobs by the teacher's id."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dfkd import Client
from dfkd.cli.main import app
from tests.dfkd_core.interfaces import classifier, node
from tests.service.harness import Service, holdings, multipart, problem_of, spec_text

NARROWED = {"student": {"architecture": "teacher", "width": 0.5}}
SPACE = {"mean": [0.5], "std": [0.25]}


def two_outputs(name: str) -> bytes:
    """A file that says neither which output holds the classes nor how large its images are."""
    outputs = {"logits": ("N", 4), "twice": ("N", 4)}
    after = [node("Identity", ["scores"], "logits"), node("Add", ["scores", "scores"], "twice")]
    made = classifier(after=after, outputs=outputs, dims=("N", 3, "H", "W"), names=(f"images_{name}", "logits"))
    return made.SerializeToString()


def upload(http: httpx.Client, file: bytes, said: dict[str, Any] | None) -> httpx.Response:
    parts = [("teacher", file)] if said is None else [("spec", spec_text({"teacher": said})), ("teacher", file)]
    headers = {"Content-Type": "multipart/form-data; boundary=a-boundary-of-ours"}
    return http.post("/teachers", content=multipart(parts), headers=headers)


def job(http: httpx.Client, teacher_id: str, **teacher: Any) -> httpx.Response:
    return http.post("/jobs", json={**NARROWED, "teacher": {"id": teacher_id, **teacher}})


def test_a_job_by_id_need_not_repeat_what_the_upload_said(http: httpx.Client) -> None:
    file = two_outputs("once")
    said = {"output": "logits", "input": {"shape": [3, 8, 8], **SPACE}}
    refused = problem_of(upload(http, file, None))
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("teacher-mismatch", "/teacher/output")
    kept = upload(http, file, said)
    assert kept.status_code == 201, kept.text
    assert kept.json()["spec"] == said
    assert kept.json()["methods"] is not None
    accepted = job(http, kept.json()["id"])
    assert accepted.status_code == 202, accepted.text
    teacher = accepted.json()["spec"]["teacher"]
    assert (teacher["output"], teacher["input"]["shape"]) == ("logits", [3, 8, 8])
    assert (teacher["input"]["mean"], teacher["input"]["std"]) == ([0.5] * 3, [0.25] * 3)
    codes = {warning["code"] for warning in accepted.json()["warnings"]}
    assert codes.isdisjoint({"input-range-unknown", "input-space-estimated"})


def test_what_a_job_says_itself_wins(http: httpx.Client) -> None:
    said = {"output": "logits", "input": {"shape": [3, 8, 8], **SPACE}}
    kept = upload(http, two_outputs("wins"), said).json()["id"]
    other = job(http, kept, output="twice", input={"shape": [3, 16, 16], "mean": None, "std": None}).json()
    assert other["spec"]["teacher"]["output"] == "twice"
    assert other["spec"]["teacher"]["input"]["shape"] == [3, 16, 16]
    assert other["spec"]["teacher"]["input"]["std"] != [0.25] * 3
    assert other["spec"]["teacher"]["input"]["assumed"] is not None
    assert "input-range-unknown" in {warning["code"] for warning in other["warnings"]}
    planned = http.post("/plans", json={**NARROWED, "teacher": {"id": kept}})
    assert planned.status_code == 200, planned.text


def test_a_later_upload_with_a_spec_replaces_what_was_said_and_one_without_keeps_it(http: httpx.Client) -> None:
    file = classifier(dims=("N", 3, "H", "W"), names=("later", "y")).SerializeToString()
    silent = upload(http, file, None)
    assert (silent.status_code, silent.json()["spec"], silent.json()["methods"]) == (201, None, None)
    said = upload(http, file, {"input": {"shape": [3, 8, 8]}})
    assert (said.status_code, said.json()["inspection"]["input_shape"]) == (200, [3, 8, 8])
    again = http.post("/teachers", content=file, headers={"Content-Type": "application/octet-stream"})
    assert again.json()["spec"] == {"input": {"shape": [3, 8, 8]}}
    assert again.json()["inspection"]["input_shape"] == [3, 8, 8]


@pytest.mark.parametrize(
    ("said", "code", "pointer"),
    [
        ({"input": {"shpe": [3, 8, 8]}}, "validation-error", "/teacher/input/shpe"),
        ({"input": {"mean": [0.5, 0.5], "std": [1, 1]}}, "teacher-mismatch", "/teacher/input/mean"),
        ({"num_classes": 7}, "teacher-mismatch", "/teacher/num_classes"),
        ({"output": "nothing"}, "teacher-mismatch", "/teacher/output"),
    ],
)
def test_what_does_not_fit_the_file_is_refused_and_leaves_nothing(
    service: Service, said: dict[str, Any], code: str, pointer: str
) -> None:
    before = holdings(service)
    file = classifier(names=(f"{code}-{pointer.replace('/', '_')}", "y")).SerializeToString()
    problem = problem_of(upload(service.http, file, said))
    assert (problem["code"], problem["errors"][0]["pointer"]) == (code, pointer)
    after = holdings(service)
    assert (after.rows["teachers"], after.files) == (before.rows["teachers"], before.files)


def test_client_and_command_send_what_is_said(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(two_outputs("client"))
    with Client(service.url) as client:
        found = client.upload_teacher(path, {"teacher": {"output": "logits", "input": {"shape": [3, 8, 8]}}})
        assert found.spec == {"output": "logits", "input": {"shape": [3, 8, 8]}}
        assert client.submit(found.id, NARROWED).spec["teacher"]["output"] == "logits"
    options = ["--teacher-output", "twice", "--shape", "3,8,8", "--mean", "0.5", "--std", "0.5", "--url", service.url]
    shown = CliRunner().invoke(app, ["upload", str(path), *options])
    assert (shown.exit_code, shown.output.strip()) == (0, found.id), shown.output
    assert service.http.get(f"/teachers/{found.id}").json()["spec"]["output"] == "twice"
