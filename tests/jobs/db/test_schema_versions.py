"""Revisions: they lead to the same tables as the definition, and old versions refuse tables that are too new."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from jobs.db import tables
from jobs.db.database import Database
from jobs.db.schema_versions import BASELINE, VERSIONS, Revisions, current
from jobs.errors import SchemaRefused
from jobs.models import JobState
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import artifact_ref, submit
from tests.jobs.racers import race
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = {"compare_type": True, "compare_server_default": True}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A transaction of its own, committed at the end."""
    with closing(Database(url)) as database, database._writer.connect() as connection:
        yield connection
        connection.commit()


def asked(url: str, question: Callable[[Connection], Any]) -> Any:
    with connected(url) as connection:
        return question(connection)


def at_baseline(url: str) -> None:
    """A database as it was before there were revisions."""
    with connected(url) as connection:
        Revisions().upgrade(connection, to=BASELINE)
        connection.exec_driver_sql("DROP TABLE alembic_version")


def differences(connection: Connection) -> Any:
    return compare_metadata(MigrationContext.configure(connection, opts=OPTIONS), tables.metadata)


def constraints(connection: Connection) -> set[tuple[str, Any, str]]:
    """What a comparison of columns and indices does not see."""
    inspector = inspect(connection)
    return {
        (table, check["name"], re.sub(r"\s+", " ", str(check["sqltext"])))
        for table in inspector.get_table_names()
        for check in inspector.get_check_constraints(table)
    }


def test_the_revisions_lead_to_the_tables_of_the_code(database_url: str) -> None:
    open_store(Settings(database_url=database_url)).close()
    assert asked(database_url, differences) == []
    assert asked(database_url, current) == Revisions().head


def test_the_checks_are_those_of_the_code(sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    for url in (sqlite_url, postgres_url):
        open_store(Settings(database_url=url)).close()
        made = asked(url, constraints)
        with connected(url) as connection:
            for name in inspect(connection).get_table_names():
                connection.exec_driver_sql(f"DROP TABLE {name}" + (" CASCADE" if url == postgres_url else ""))
            tables.metadata.create_all(connection)
        assert made == asked(url, constraints)
        assert len(made) == 5


def test_numbers_of_deleted_jobs_are_not_used_again_on_sqlite(sqlite_url: str) -> None:
    open_store(Settings(database_url=sqlite_url)).close()
    with connected(sqlite_url) as connection:
        made = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'jobs'").scalar_one()
    assert "AUTOINCREMENT" in made


def test_a_difference_would_be_found(database_url: str) -> None:
    open_store(Settings(database_url=database_url)).close()
    with connected(database_url) as connection:
        connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN left_over INTEGER")
    assert len(asked(database_url, differences)) == 1


def test_tables_from_before_there_were_revisions_are_adopted_with_what_they_hold(database_url: str) -> None:
    at_baseline(database_url)
    assert asked(database_url, current) == BASELINE
    with connected(database_url) as connection:
        connection.exec_driver_sql(
            "INSERT INTO workers (id, host, slots, device, started_at, seen_at) VALUES "
            "('old', 'here', 1, 'cpu', '2026-01-31T12:00:00.000Z', '2999-01-31T12:00:00.000Z')"
        )
    with closing(open_store(Settings(database_url=database_url))) as store:
        assert [worker.id for worker in store.live_workers(60)] == ["old"]
    assert asked(database_url, differences) == []
    assert asked(database_url, current) == Revisions().head


def test_every_revision_only_adds(database_url: str) -> None:
    revisions = Revisions()
    with connected(database_url) as connection:
        before: dict[str, dict[str, Any]] = {}
        for revision in revisions.names:
            revisions.upgrade(connection, to=revision)
            after = columns(connection)
            for table, known in before.items():
                assert known.keys() <= after[table].keys(), revision
                added = [column for name, column in after[table].items() if name not in known]
                assert all(column["nullable"] or column["default"] is not None for column in added), revision
            before = after


def columns(connection: Connection) -> dict[str, dict[str, Any]]:
    inspector = inspect(connection)
    return {
        table: {column["name"]: column for column in inspector.get_columns(table)}
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


LATER = """
import sqlalchemy as sa
from alembic import op

revision = {name!r}
down_revision = {before!r}

def upgrade():
    op.add_column("jobs", sa.Column("mood_{name}", sa.Text, nullable=True))
"""


def changed_by_later_versions(url: str, directory: Path, *names: str) -> None:
    """As if versions with these revisions had opened the ledger."""
    before = Revisions().head
    for name in names:
        (directory / f"v{name}.py").write_text(LATER.format(name=name, before=before))
        before = name
    with closing(Database(url)) as database:
        database.upgrade(Revisions(VERSIONS, directory))


def release(revision: str) -> int:
    return int(revision.partition("_")[0])


NEXT = f"{release(Revisions().head) + 1}_1"
AFTER_NEXT = f"{release(Revisions().head) + 2}_1"


def test_this_version_works_on_the_tables_of_the_next(database_url: str, tmp_path: Path) -> None:
    changed_by_later_versions(database_url, tmp_path, NEXT)
    with closing(open_store(Settings(database_url=database_url, backoff_seconds=0.0))) as store:
        go_all_the_way(store)
    with connected(database_url) as connection:
        assert current(connection) == NEXT
        assert len(differences(connection)) == 1


def go_all_the_way(store: Store) -> None:
    """One job to its end, with a lost attempt; another one back in the queue."""
    first, second = submit(store), submit(store)
    for charged in (True, False):
        claim = store.claim("old", 60, 1)
        assert claim is not None
        assert store.heartbeat(claim.job.id, claim.fence, 60) is not None
        assert store.record(claim.job.id, claim.fence, events=[("stage", {"stage": "load"})])
        if charged:
            assert store.release(claim.job.id, claim.fence, reason="drained", charged=True)
        else:
            assert store.succeed(claim.job.id, claim.fence, artifacts=[artifact_ref()])
    assert (store.get(first.id).state, store.get(second.id).state) == (JobState.SUCCEEDED, JobState.QUEUED)


def test_tables_of_the_version_after_the_next_are_refused(database_url: str, tmp_path: Path) -> None:
    changed_by_later_versions(database_url, tmp_path, NEXT, AFTER_NEXT)
    with pytest.raises(SchemaRefused, match=f"have revision {AFTER_NEXT}, and this version of dfkd knows"):
        open_store(Settings(database_url=database_url))
    assert asked(database_url, current) == AFTER_NEXT


@pytest.mark.parametrize("strange", ["0_99", "main", "d2a5f1c0"])
def test_a_revision_that_nobody_knows_is_refused(database_url: str, strange: str) -> None:
    open_store(Settings(database_url=database_url)).close()
    with connected(database_url) as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{strange}'")
    with pytest.raises(SchemaRefused):
        open_store(Settings(database_url=database_url))


def test_a_change_that_fails_leaves_the_tables_as_they_were(database_url: str, tmp_path: Path) -> None:
    open_store(Settings(database_url=database_url)).close()
    text = LATER.format(name=NEXT, before=Revisions().head) + "    raise RuntimeError('half way')\n"
    (tmp_path / "broken.py").write_text(text)
    with closing(Database(database_url)) as database, pytest.raises(RuntimeError, match="half way"):
        database.upgrade(Revisions(VERSIONS, tmp_path))
    assert asked(database_url, differences) == []
    assert asked(database_url, current) == Revisions().head


SLOW = """
import time
from alembic import op

revision = {name!r}
down_revision = {before!r}

def upgrade():
    op.execute("CREATE TABLE made_once (id INTEGER)")
    time.sleep(0.2)
    if op.get_context().dialect.name == "postgresql":
        op.execute("SELECT pg_sleep(4)")
"""


def test_a_slow_change_is_waited_for_and_made_once(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW.format(name=NEXT, before=Revisions().head))
    errors: list[BaseException] = []

    def open_one() -> None:
        try:
            with closing(Database(postgres_url)) as database:
                database.upgrade(Revisions(VERSIONS, tmp_path))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (errors, [thread.is_alive() for thread in threads]) == ([], [False] * 3)
    assert asked(postgres_url, current) == NEXT


@pytest.mark.parametrize("old", [False, True])
def test_many_processes_may_open_the_ledger_at_once(database_url: str, old: bool) -> None:
    if old:
        at_baseline(database_url)
    assert race("opens", database_url, number=4) == ["opened"] * 4
    assert asked(database_url, differences) == []
