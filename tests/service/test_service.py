"""Health, menu, problems, OpenAPI: the service describes itself correctly."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from pydantic import TypeAdapter

from dfkd.wire.deletion import PurgeView
from dfkd.wire.event import EventPage
from dfkd.wire.job import JobView
from dfkd.wire.menu import Menu
from dfkd.wire.teacher import TeacherView
from dfkd_core.errors import CodedError, DfkdError, TeacherError
from dfkd_core.options.registry import MemoryName, MethodName
from jobs.errors import JOB_FAILURES, LedgerError
from jobs.models import JobSpec
from service.intake.spec_parsing import JobRequest
from service.problems.errors import ApiError
from service.problems.table import BY_CODE, TABLE, row_for
from service.representation import examples
from tests.service.conftest import SPEC, claim
from tests.service.harness import Service, eventually, post_parts, problem_of, running_service, spec_text

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("libtorch", "onnx_cpp2py", "onnxruntime", "safetensors_rust")


def test_the_process_has_loaded_no_library_of_the_science(service: Service) -> None:
    maps = Path(f"/proc/{service.pid}/maps").read_text()
    assert [name for name in HEAVY if name in maps] == []


def test_a_service_without_workers_is_ready_and_says_so(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    response = http.get("/readyz")
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["missing"]) == ("degraded", ["worker"])
    assert response.json()["checks"]["broker"] == "not configured"


def test_a_live_worker_is_no_longer_missing(service: Service) -> None:
    service.store.worker_seen("w", host="here", slots=1, device="cpu")
    try:
        assert service.http.get("/readyz").json()["status"] == "ok"
    finally:
        service.store.worker_gone("w")


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose broker is not there."""
    directory = tmp_path_factory.mktemp("lonely")
    leftover = directory / "data" / "artifacts" / "temporary" / "of-a-killed-service"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half an upload")
    os.utime(leftover, (0, 0))
    broker_url = f"redis+socket://{directory}/none.sock"
    with running_service(directory / "data", DFKD_BROKER_URL=broker_url, DFKD_SWEEP_SECONDS="0.3") as running:
        yield running


def test_a_broker_that_does_not_answer_is_named_and_jobs_are_still_taken(lonely: Service, teacher: bytes) -> None:
    answer = lonely.http.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (200, ["broker", "worker"])
    headers = {"Content-Type": "application/octet-stream"}
    sha256 = lonely.http.post("/teachers", content=teacher, headers=headers).json()["id"]
    spec = {"student": {"architecture": "lenet5_half"}, "teacher": {"id": sha256}}
    assert lonely.http.post("/jobs", json=spec).status_code == 202


def test_a_job_whose_worker_vanished_is_queued_again(lonely: Service, teacher: bytes) -> None:
    job_id = post_parts(lonely.http, [("spec", spec_text(SPEC)), ("teacher", teacher)]).json()["id"]
    claim(lonely, job_id, lease_seconds=0.1)
    assert eventually(lambda: lonely.http.get(f"/jobs/{job_id}").json()["state"] == "queued")
    events = lonely.http.get(f"/jobs/{job_id}/events").json()["events"]
    assert [event["kind"] for event in events][:2] == ["created", "claimed"]
    assert events[2]["data"]["reason"] == "lease-expired"


def test_what_a_killed_service_left_half_way_is_cleared(lonely: Service) -> None:
    temporary = lonely.settings.data_dir / "artifacts" / "temporary"
    assert eventually(lambda: not list(temporary.iterdir()))


def test_the_same_service_stands_on_postgresql(postgres_url: str, tmp_path: Path, teacher: bytes) -> None:
    spec = {**SPEC, "name": "détecteur 7", "labels": {"on": "postgresql"}}
    with running_service(tmp_path / "data", DFKD_DATABASE_URL=postgres_url) as service:
        accepted = post_parts(service.http, [("spec", spec_text(spec)), ("teacher", teacher)])
        path = accepted.headers["location"]
        assert accepted.status_code == 202
        assert service.http.get("/jobs?label=on=postgresql&state=queued").json()["jobs"][0]["name"] == "détecteur 7"
        assert service.http.post(f"{path}/cancel").json()["state"] == "cancelled"
        assert len(service.http.get(f"{path}/events").json()["events"]) == 2
        assert service.http.delete(path).status_code == 200
        assert problem_of(service.http.get(path))["code"] == "job-not-found"
        assert service.http.get("/readyz").json()["checks"]["database"] == "ok"


def test_without_its_database_the_service_is_unavailable_and_comes_back(lonely: Service) -> None:
    with closing(sqlite3.connect(lonely.settings.data_dir / "ledger.sqlite3", isolation_level=None)) as ledger:
        ledger.execute("ALTER TABLE jobs RENAME TO elsewhere")
        answer = lonely.http.get("/readyz")
        refused = lonely.http.get("/jobs")
        ledger.execute("ALTER TABLE elsewhere RENAME TO jobs")
    assert (answer.status_code, answer.json()["missing"][0]) == (503, "database")
    assert (refused.status_code, problem_of(refused)["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"] == "5"
    assert "sqlite" not in refused.text.lower()
    assert lonely.http.get("/jobs").status_code == 200


def test_the_menu_is_sized_for_the_input_that_was_asked_for(http: httpx.Client) -> None:
    menu = Menu.model_validate(http.get("/menu?channels=1&height=32&width=32&num_classes=10").json())
    sizes = {student.name: student.parameters for student in menu.students}
    assert sizes["lenet5"] == 61706
    assert {"lenet5_half", "resnet18", "wrn_16_1", "vgg8", "mobilenetv2"} <= set(sizes)
    assert set(menu.methods) == set(get_args(MethodName))
    assert set(menu.memories) == set(get_args(MemoryName))
    assert menu.methods["ddad"]["needs"] == ["batchnorm"]
    assert all("name" not in schema["properties"] for schema in menu.methods.values())
    assert "name" not in menu.memories["vae"]["properties"]
    assert menu.spec["additionalProperties"] is False
    assert "name" not in menu.spec["$defs"]["VaeOptions"]["properties"]
    assert "name" not in menu.spec["$defs"]["DfadOptions"]["properties"]


def test_a_student_that_cannot_take_the_input_says_why(http: httpx.Client) -> None:
    students = http.get("/menu?channels=1&height=8&width=8").json()["students"]
    refused = [student for student in students if student["refused"]]
    assert refused
    assert all(student["parameters"] is None for student in refused)


@pytest.mark.parametrize("query", ["channels=0", "height=x", "student_width=nan", "num_classes=1", "depth=3"])
def test_a_wrong_menu_query_is_refused(http: httpx.Client, query: str) -> None:
    assert problem_of(http.get(f"/menu?{query}"))["code"] == "validation-error"


def test_every_code_is_described_where_its_type_points(http: httpx.Client) -> None:
    for row in TABLE:
        assert http.get(row.type).json()["meaning"] == row.meaning
    assert problem_of(http.get("/problems/none"))["code"] == "not-found"


def subclasses(root: type[CodedError]) -> set[type[CodedError]]:
    return {root}.union(*(subclasses(child) for child in root.__subclasses__()))


def test_every_exception_of_the_rooms_is_in_the_table() -> None:
    roots = {ApiError, LedgerError, DfkdError, TeacherError}
    ours = (subclasses(ApiError) | subclasses(LedgerError) | subclasses(DfkdError)) - roots
    assert {error for error in ours if "code" not in vars(error)} == set()
    assert {error.code for error in ours} - {"stopped", "cannot-start"} - set(BY_CODE) == set()


def test_every_code_is_described_once() -> None:
    ours = subclasses(CodedError)
    codes = [error.code for error in ours if "title" in vars(error)] + list(JOB_FAILURES)
    assert sorted(codes) == sorted(BY_CODE)
    assert [row for row in TABLE if not (row.title and row.meaning.endswith("."))] == []


def test_every_code_of_the_workers_is_in_the_table() -> None:
    sources = [*(ROOT / "worker").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    codes = {code for path in sources for code in re.findall(r'JobError\(\s*code="([a-z-]+)"', path.read_text())}
    assert codes
    assert codes - set(BY_CODE) == set()


def test_a_stranger_among_the_exceptions_is_internal() -> None:
    assert row_for(RuntimeError("x")).code == "internal"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/jobs", "GET, POST"),
        ("POST", "/jobs/x", "DELETE, GET"),
        ("GET", "/jobs/x/cancel", "POST"),
        ("DELETE", "/jobs/x/artifacts/y", "GET, HEAD"),
        ("PATCH", "/teachers", "POST"),
        ("TRACE", "/menu", "GET"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(http: httpx.Client, method: str, path: str, allow: str) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert problem_of(response)["code"] == "method-not-allowed"


@pytest.mark.parametrize("path", ["/nothing", "/jobs/", "/jobs/x/y/z", "/%2e%2e/etc/passwd"])
def test_a_wrong_path_is_not_found(http: httpx.Client, path: str) -> None:
    assert problem_of(http.get(path))["code"] == "not-found"


def test_the_root_leads_to_the_documentation(http: httpx.Client) -> None:
    response = http.get("/", follow_redirects=True)
    assert response.status_code == 200
    assert response.url.path == "/docs"


def test_no_reply_shows_the_host_that_was_asked_for(http: httpx.Client, queued: str) -> None:
    for path in (f"/jobs/{queued}", "/jobs?limit=1", "/nothing", "/"):
        response = http.get(path, headers={"Host": "evil.example"})
        assert "evil" not in response.text + str(response.headers)


def test_the_document_holds_our_operations_and_our_problems(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert {"create_job", "list_jobs", "get_job", "cancel_job", "delete_job", "download_artifact"} <= set(names)
    assert "name" not in document["components"]["schemas"]["VaeOptions"]["properties"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert set(codes) == {row.code for row in TABLE if row.status}
    for operation in operations:
        for status, response in operation["responses"].items():
            refusal = status == "default" or (int(status) >= 400 and operation["operationId"] != "readyz")
            assert not refusal or list(response["content"]) == ["application/problem+json"]


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(child) for child in node.values()))
    return set().union(*(references(child) for child in node)) if isinstance(node, list) else set()


def test_every_reference_in_the_document_leads_somewhere(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) - known == set()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (JobSpec, examples.SPEC),
        (JobRequest, examples.REQUEST),
        (JobView, examples.RUNNING_JOB),
        (JobView, examples.QUEUED_JOB),
        (TeacherView, examples.TEACHER),
        (EventPage, examples.EVENT_PAGE),
        (PurgeView, examples.PURGE),
    ],
)
def test_the_examples_are_what_the_schemas_say(kind: Any, value: Any) -> None:
    TypeAdapter(kind).validate_python(value)
    if issubclass(kind, JobView):
        assert set(value) == set(JobView.model_fields)
