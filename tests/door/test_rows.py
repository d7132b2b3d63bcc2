"""Every row of the table through real HTTP: status and code, and that a refused request leaves nothing."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.problems.table import BY_CODE
from tests.door.door import Door, Input, Reply
from tests.door.inputs import INPUTS

MAX_ERRORS = 20
DAILY = 1  # inputs of a row
BRIEF_BYTES = 16 * 1024
STRANGE = re.compile(
    r"Traceback|File \"|site-packages|/tmp/|/home/|/usr/|0x[0-9a-f]{8}|sqlalchemy|pydantic|numpy|Error:"
)


def identifier(entry: Input) -> str:
    return f"{entry.row}-{re.sub(r'[^A-Za-z0-9.]+', '_', entry.what)[:40]}"


def is_daily(entry: Input) -> bool:
    """Whether `make test` sends it: the first input of every row that does not take long."""
    return entry in [other for other in INPUTS if other.row == entry.row and not other.slow][:DAILY]


PARAMETERS = [
    pytest.param(entry, id=identifier(entry), marks=[] if is_daily(entry) else [pytest.mark.slow]) for entry in INPUTS
]


@pytest.mark.parametrize("entry", PARAMETERS)
def test_row(request: pytest.FixtureRequest, entry: Input, record_property: Callable[[str, object], None]) -> None:
    door: Door = request.getfixturevalue("guarded_door" if entry.guarded else "door")
    record_property("row", entry.row)
    record_property("what", entry.what)
    door.renew()
    before = door.holdings()
    started = time.perf_counter()
    reply = entry.send(door)
    record_property("seconds", time.perf_counter() - started)
    record_property("answer", answer_of(reply))
    assert answer_of(reply) == entry.expected, reply.text[:2000]
    assert_discreet(door, reply, entry)
    if not entry.refused:
        forget_jobs(door)
        return
    if entry.row != "B-025":  # whose key was used by a good request, which left its job
        assert door.holds(before)
        door.good()
    else:
        forget_jobs(door)


def answer_of(reply: Reply) -> str:
    """Status and code, as `Input.expected` has them."""
    problem = reply.headers.get("content-type") == "application/problem+json" and reply.body
    code = reply.json["code"] if problem else None
    return " ".join(str(part) for part in (reply.status or "closed", code) if part)


def assert_discreet(door: Door, reply: Reply, entry: Input) -> None:
    """The form of a problem, its pointer and hint; nothing of ours and nothing of the caller's in it."""
    everything = reply.text + "".join(f"{name}: {text}\n" for name, text in reply.headers.items())
    for secret in entry.secrets:
        assert secret not in everything
    if not entry.refused:
        return
    assert not STRANGE.search(everything), everything
    assert str(door.service.settings.data_dir) not in everything
    assert len(reply.body) < BRIEF_BYTES
    if entry.code is not None:
        assert_problem(reply, entry)


def assert_problem(reply: Reply, entry: Input) -> None:
    problem: dict[str, Any] = reply.json
    row = BY_CODE[problem["code"]]
    assert (problem["status"], problem["title"], problem["type"]) == (reply.status, row.title, row.type)
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert problem["detail"]
    errors = problem.get("errors", [])
    assert len(errors) <= MAX_ERRORS
    assert all(error["detail"] and ("pointer" in error or "parameter" in error) for error in errors)
    if entry.pointer is not None:
        assert any(error.get("pointer", "").startswith(entry.pointer) for error in errors), problem
    if entry.code == "validation-error":
        assert errors
    if entry.hint:
        assert problem["hint"]


def forget_jobs(door: Door) -> None:
    """Away with what was accepted."""
    kept = set(door.jobs.values())
    for job in door.service.http.get("/jobs?limit=100&state=queued").json()["jobs"]:
        if job["id"] not in kept:
            assert door.service.http.post(f"/jobs/{job['id']}/cancel").status_code == 202


@pytest.mark.parametrize("name", ["door", "guarded_door"])
def test_a_good_request_succeeds_after_all_this(request: pytest.FixtureRequest, name: str) -> None:
    door: Door = request.getfixturevalue(name)
    door.renew()
    door.good()
