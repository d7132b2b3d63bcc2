"""`dfkd tenants` writes limits into the ledger; `dfkd audit` prints the audit log."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkd.cli import main
from dfkd.cli.exit_codes import Exit
from jobs.identity import Caller
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import submit_for

Run = Callable[..., tuple[int, list[Any], str]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The ledger that the commands work on."""
    opened = open_store(Settings(data_dir=tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dfkd` with these arguments → exit code, lines of standard output as JSON, standard error."""

    def run(*words: str) -> tuple[int, list[Any], str]:
        monkeypatch.setattr(sys, "argv", ["dfkd", *words, "--data-dir", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), [json.loads(line) for line in said.out.splitlines()], said.err

    return run


def test_limits_are_set_listed_and_given_back(run: Run, store: Store) -> None:
    submit_for(store, tenant="a")
    assert run("tenants", "set", "a", "queued_jobs=7", "stored_bytes=0") == (Exit.OK, [], "")
    code, (line,), _ = run("tenants", "list")
    assert code == Exit.OK
    assert line == {
        "tenant": "a",
        "queued_jobs": {"limit": 7, "used": 1},
        "running_jobs": {"limit": None, "used": 0},
        "stored_bytes": {"limit": None, "used": len("teacher")},
        "device_seconds_per_day": {"limit": None, "used": 0},
    }
    run("tenants", "set", "a", "queued_jobs=default")
    assert run("tenants", "list")[1][0]["queued_jobs"]["limit"] is None


@pytest.mark.parametrize("wrong", ["jobs=1", "queued_jobs", "queued_jobs=-1", "queued_jobs=1.5", "queued_jobs=1e99"])
def test_what_is_no_limit_changes_nothing(run: Run, wrong: str) -> None:
    code, _, complaint = run("tenants", "set", "a", "running_jobs=3", wrong)
    assert (code, "usage" in complaint) == (Exit.USAGE, True)
    assert run("tenants", "list")[1] == []


@pytest.mark.parametrize("name", ["", "x" * 65, "two words"])
def test_what_is_no_tenant_gets_no_limit(run: Run, name: str) -> None:
    assert run("tenants", "set", name, "running_jobs=3")[0] == Exit.USAGE


def test_the_audit_log_is_printed_a_line_an_act(run: Run, store: Store) -> None:
    job = submit_for(store, tenant="a")
    store.of(Caller("a", key_id="key-7", request_id="r-1")).request_cancel(job.id)
    store.of(Caller("b")).note_download(job.id, "report.json")
    code, lines, _ = run("audit")
    assert code == Exit.OK
    assert [line["act"] for line in lines] == ["uploaded", "submitted", "cancelled", "downloaded"]
    assert lines[2] | {"at": "", "number": 0} == {
        "number": 0,
        "at": "",
        "tenant": "a",
        "key_id": "key-7",
        "act": "cancelled",
        "object_id": job.id,
        "detail": None,
        "outcome": "done",
        "request_id": "r-1",
    }
    assert [line["act"] for line in run("audit", "--tenant", "b")[1]] == ["downloaded"]
    assert [line["act"] for line in run("audit", "--object", job.id)[1]] == ["submitted", "cancelled", "downloaded"]
    assert run("audit", "--since", "2999-01-31")[1] == []
    assert len(run("audit", "--since", "2020-01-31T12:00:00")[1]) == 4
