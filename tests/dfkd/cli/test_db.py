"""`dfkd db`: the revision of the tables that it prints, and the upgrade."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dfkd.cli import main
from dfkd.cli.exit_codes import Exit
from jobs.db.database import Database
from jobs.db.schema_versions import BASELINE, Revisions

Run = Callable[..., tuple[int, str, str]]
HEAD = Revisions().head


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dfkd db` with these arguments on a new database → exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("DFKD_DATABASE_URL", database_url)
        monkeypatch.setattr(sys, "argv", ["dfkd", "db", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_an_empty_database_has_none_and_gets_all_of_them_once(run: Run) -> None:
    assert run("current") == (Exit.OK, "none\n", f"this version needs {HEAD}: dfkd db upgrade\n")
    assert run("upgrade") == (Exit.OK, f"none -> {HEAD}\n", "")
    assert run("upgrade") == (Exit.OK, f"{HEAD}\n", "")
    assert run("current") == (Exit.OK, f"{HEAD}\n", "")


def test_an_old_database_is_told_and_brought_up_to_date(run: Run, database_url: str) -> None:
    with closing(Database(database_url)) as database:
        database.write(lambda transaction: Revisions().upgrade(transaction.connection, to=BASELINE))
    assert run("current")[:2] == (Exit.OK, f"{BASELINE}\n")
    assert run("upgrade")[:2] == (Exit.OK, f"{BASELINE} -> {HEAD}\n")


@pytest.mark.parametrize("words", ["current", "upgrade"])
def test_a_database_that_is_too_new_is_refused(run: Run, database_url: str, words: str) -> None:
    run("upgrade")
    with closing(Database(database_url)) as database:
        text = "UPDATE alembic_version SET version_num = '99_1'"
        database.write(lambda transaction: transaction.connection.exec_driver_sql(text).close())
    code, out, complaint = run(words)
    assert (code, out) == (Exit.REFUSED, "")
    assert "the tables of the database have revision 99_1" in complaint


def test_a_database_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_DATABASE_URL", "postgresql+psycopg://dfkd@/postgres?host=/nonexistent")
    monkeypatch.setattr(sys, "argv", ["dfkd", "db", "current"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == Exit.UNREACHABLE


def test_a_wrong_setting_is_called_by_its_variable(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_WORKER_SLOTS", "none")
    code, _, complaint = run("current", "--data-dir", str(tmp_path))
    assert (code, "DFKD_WORKER_SLOTS: " in complaint) == (Exit.USAGE, True)
