"""The command that makes a key shows it once. Nothing else writes it down, not even at the log level DEBUG."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import MetaData, create_engine, select

from jobs.settings import Settings
from tests.e2e.service import profile, spec, stop
from tests.e2e.teacher import write_teacher
from tests.known_speed import keep_speed
from tests.patience import PATIENCE, until

TALKATIVE = """
import logging, runpy, sys
from jobs.log_context import log_to_stderr
log_to_stderr("json")
logging.getLogger().setLevel(logging.DEBUG)
for name in logging.root.manager.loggerDict:
    logging.getLogger(name).setLevel(logging.NOTSET)
logging.Logger.setLevel = lambda *_: None  # from here on nobody is told to say less
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
SECRET = re.compile(r"dfkd_[0-9a-f]{16}_([0-9a-f]{64})")


class Talkative:
    """API, worker and commands at DEBUG, each as a process whose log goes to one file."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.settings = Settings(data_dir=directory / "data", database_url=database_url)
        keep_speed(self.settings.data_dir)
        self._log = directory / "log"
        own = {"DFKD_DATA_DIR": str(self.settings.data_dir), "DFKD_DATABASE_URL": database_url, "DFKD_AUTH": "required"}
        self._environment = {**os.environ, **profile(), **own, "DFKD_LOG_FORMAT": "json"}

    def log(self) -> str:
        return self._log.read_text()

    def dfkd(self, *words: str, **environment: str) -> str:
        """Return what a command prints; its log goes to the file."""
        command = [sys.executable, "-c", TALKATIVE, "dfkd.cli.main", *words]
        with self._log.open("ab") as log:
            ended = subprocess.run(
                command, env={**self._environment, **environment}, stdout=subprocess.PIPE, stderr=log, check=True
            )
        return ended.stdout.decode()

    @contextmanager
    def started(self, *words: str) -> Iterator[None]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", TALKATIVE, *words], env=self._environment, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            stop(process)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Start API and worker; return the URL."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with self.started("service", "--port", str(port)), self.started("worker"):
            until(lambda: answers(url))
            yield url

    def ledger(self) -> str:
        """Return every column of every table, and the bytes of every file."""
        engine, tables = create_engine(self.settings.resolved_database_url), MetaData()
        tables.reflect(engine)
        with engine.connect() as connection:
            rows = [repr(row) for table in tables.sorted_tables for row in connection.execute(select(table))]
        engine.dispose()
        assert {"api_keys", "jobs", "events", "audit", "requests"} <= tables.tables.keys()
        files = [path.read_bytes().decode("latin-1") for path in self.settings.data_dir.glob("ledger.sqlite3*")]
        return "\n".join([*rows, *files])


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200
    except httpx.TransportError:
        return False


def everything_asked(url: str, key: str, job_id: str) -> str:
    """Send good and bad requests with the key where it belongs and where it does not; return the answers."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as http:
        paths = ("/jobs", "/menu", "/quota", "/metrics", f"/jobs/{job_id}", f"/jobs/{job_id}/events", "/nothing")
        heard = [http.get(path, params={"key": key} if path == "/nothing" else None) for path in paths]
        heard += [http.post(f"/jobs/{job_id}/{act}", headers={"Idempotency-Key": act}) for act in ("cancel", "pause")]
        heard += [http.get("/jobs", headers={"Authorization": given}) for given in (f"Bearer {key}0", f"Basic {key}")]
        heard += [http.post("/jobs", json={"student": key, key: key}), http.get("/jobs", params={"cursor": key})]
    assert {answer.status_code for answer in heard} >= {200, 202, 401, 403, 404, 422}
    return "\n".join(f"{answer.headers!r} {answer.text}" for answer in heard)


@pytest.mark.parametrize("database", ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.slow)])
def test_no_key_is_written_anywhere(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    talkative = Talkative(tmp_path, database_url=request.getfixturevalue(database))
    keys = [talkative.dfkd("keys", "create", "--tenant", "acme").strip() for _ in range(2)]
    secrets = [match[1] for match in map(SECRET.fullmatch, keys) if match is not None]
    assert len(set(secrets)) == 2
    (tmp_path / "spec.json").write_text(json.dumps(spec(steps=1_000_000)))
    teacher = write_teacher(tmp_path / "teacher.onnx")
    with talkative.serving() as url:
        asking = {"DFKD_URL": url, "DFKD_API_KEY": keys[0]}
        job_id = talkative.dfkd("submit", str(teacher), "--spec", str(tmp_path / "spec.json"), **asking).strip()
        until(lambda: '"job claimed"' in talkative.log())
        said = everything_asked(url, keys[0], job_id) + talkative.dfkd("show", job_id, **asking)
        said += talkative.dfkd("keys", "revoke", keys[1].split("_")[1]) + talkative.dfkd("keys", "list", "--json")
        said += talkative.dfkd("audit") + talkative.ledger()
    said += talkative.ledger()
    log = talkative.log()
    for logger in ("sqlalchemy.engine.Engine", "httpcore.http11", "worker.", "service."):
        assert re.search(rf'"level": "(DEBUG|INFO)", "logger": "{re.escape(logger)}', log), logger
    assert job_id in log
    assert [secret for secret in secrets if secret in log] == []
    assert [secret for secret in secrets if secret in said] == []
