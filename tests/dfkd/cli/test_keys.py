"""`dfkd keys`, and the addresses on which the API may listen without a key."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dfkd import Client
from dfkd.cli import main
from dfkd.cli.exit_codes import Exit
from dfkd.cli.keys import ScopeName
from jobs.identity import Scope
from jobs.settings import Settings
from jobs.store import open_store
from jobs.tenancy.api_keys import TOKEN
from service.embedded.bind_check import CannotStart, check_address
from tests.patience import PATIENCE
from tests.service.guarded import Guarded

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dfkd` with these arguments on a new data directory → exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("DFKD_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setattr(sys, "argv", ["dfkd", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_a_key_is_made_listed_and_revoked_and_shown_once(run: Run) -> None:
    code, key, told = run("keys", "create", "--tenant", "acme", "--name", "ci", "--priority", "2", "--days", "30")
    assert code == Exit.OK
    match = TOKEN.fullmatch(key.strip().encode())
    assert match is not None
    key_id, secret = match[1].decode(), match[2].decode()
    assert f"key {key_id} of acme (jobs:read, jobs:write)" in told
    listed = run("keys", "list")[1]
    assert re.search(rf"{key_id}  acme    jobs:read jobs:write +2  valid until 20.*  ci\n", listed)
    (found,) = json.loads(run("keys", "list", "--json")[1])
    assert (found["id"], found["scopes"], found["revoked_at"]) == (key_id, ["jobs:read", "jobs:write"], None)
    assert run("keys", "revoke", key_id)[1].startswith(f"{key_id} revoked 20")
    assert "revoked 20" in run("keys", "list")[1]
    assert secret not in listed + told + run("keys", "list", "--json")[1]


def test_scopes_are_given_one_by_one(run: Run) -> None:
    run("keys", "create", "--scope", "metrics")
    (found,) = json.loads(run("keys", "list", "--json")[1])
    assert (found["scopes"], found["tenant"], found["expires_at"]) == (["metrics"], "default", None)


def test_the_command_knows_every_scope() -> None:
    assert [name.value for name in ScopeName] == [scope.value for scope in Scope]


@pytest.mark.parametrize(
    "words",
    [("create", "--tenant", ""), ("create", "--tenant", "a b"), ("create", "--scope", "root"), ("revoke", "none"),
     ("create", "--name", "\x1b[31m"), ("create", "--priority", "100000"), ("create", "--tenant", "t" * 65)],
)  # fmt: skip
def test_what_makes_no_sense_is_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    assert run("keys", *words)[0] == Exit.USAGE


def test_a_refused_key_is_told_with_what_to_do(
    guarded: Guarded, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_URL", guarded.service.url)
    code, out, told = run("list")
    assert (code, out) == (Exit.REFUSED, "")
    assert "unauthenticated" in told
    assert "DFKD_API_KEY" in told
    monkeypatch.setenv("DFKD_API_KEY", guarded.keys["acme", "write"])
    assert "scope jobs:read" in run("list")[2]
    monkeypatch.setenv("DFKD_API_KEY", "two\nlines")
    code, out, told = run("list")
    assert (code, "two" in told) == (Exit.USAGE, False)
    monkeypatch.delenv("DFKD_API_KEY")
    (tmp_path / "key").write_text(guarded.keys["acme", "read"] + "\n")
    monkeypatch.setenv("DFKD_API_KEY_FILE", str(tmp_path / "key"))
    assert run("list")[0] == Exit.OK
    monkeypatch.setenv("DFKD_API_KEY_FILE", str(tmp_path / "none"))
    assert run("list")[0] == Exit.USAGE


def test_a_key_goes_to_its_service_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_API_KEY", "from-the-environment")
    with Client(api_key="said") as said, Client() as found:
        for client, key in ((said, "said"), (found, "from-the-environment")):
            request = next(client._transport.http.auth.auth_flow(client._transport.http.build_request("GET", "/jobs")))
            assert request.headers["authorization"] == f"Bearer {key}"
            assert key not in repr(client) + repr(client._transport.http.auth) + repr(request) + repr(request.headers)


def test_no_address_beyond_this_machine_without_a_word_about_keys(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    for host in ("127.0.0.1", "::1", "localhost"):
        check_address(host, settings)
    for host in ("0.0.0.0", "::"):
        with pytest.raises(CannotStart, match="no API key yet"):
            check_address(host, settings)
        check_address(host, settings.model_copy(update={"auth": "required"}))
        check_address(host, settings.model_copy(update={"auth": "off"}))
    assert not (tmp_path / "data").exists()
    with pytest.raises(CannotStart, match="not an address"):
        check_address("nowhere.invalid", settings)


def test_with_a_key_it_may_listen_anywhere(run: Run, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    open_store(settings).close()
    with pytest.raises(CannotStart):
        check_address("0.0.0.0", settings)
    run("keys", "create")
    check_address("0.0.0.0", settings)


def test_the_api_alone_refuses_as_well(tmp_path: Path) -> None:
    environment = {**os.environ, "DFKD_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "service", "--host", "0.0.0.0", "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ended.returncode == 1
    assert "the API cannot start: 0.0.0.0 can be reached from other machines" in ended.stderr
    assert "`dfkd keys create`" in ended.stderr
