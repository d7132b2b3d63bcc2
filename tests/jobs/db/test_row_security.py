"""Row security on PostgreSQL: a tenant sees its own rows, no tenant sees none, and named errands see all rows."""

import asyncio
import logging
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Row, Table, delete, insert, select, update
from sqlalchemy.exc import ProgrammingError

from jobs.db import tables
from jobs.db.database import Database, Transaction
from jobs.db.db_time import now
from jobs.db.row_security import ALL_TENANTS, as_all_tenants, setting
from jobs.devices import DeviceClass
from jobs.errors import JobNotFound
from jobs.files.artifacts import ArtifactStore
from jobs.files.local import Directory
from jobs.garbage_collector import collect_garbage
from jobs.identity import Caller
from jobs.ledger import queries, scheduling
from jobs.lifecycle.idempotency import OutcomeRecorder
from jobs.models import Job, JobError, JobState, JobWithPosition
from jobs.quota_limits import Quota
from jobs.settings import Settings
from jobs.store import Store, open_store
from service.app import create_app
from tests.builders import artifact_ref, digest, job_spec, submit_for, teacher_ref
from tests.servers import OWNER, SUPERUSER, Postgres, postgres_binaries

ACME, UMBRELLA = Caller("acme"), Caller("umbrella")
SHARED = [tables.workers]  # nobody's
WALLED = [table for table in tables.metadata.sorted_tables if table not in SHARED]


@pytest.fixture(scope="module")
def furnished(postgres_server: Postgres, blank_postgres: str) -> str:
    """The name of a database in which acme and umbrella each have something in every table, and nobody else."""
    url = postgres_server.make_database("furnished", like=blank_postgres)
    with closing(open_store(Settings(database_url=url, backoff_seconds=0.0))) as store:
        store.worker_seen("w", host="here", slots=1, device="cpu")
        for caller in (ACME, UMBRELLA):
            furnish(store, caller)
    return "furnished"


@pytest.fixture
def ledger(postgres_server: Postgres, furnished: str) -> Iterator[Store]:
    """A ledger on PostgreSQL as `furnished` left it."""
    url = postgres_server.make_database("ledger", like=furnished)
    with closing(open_store(Settings(database_url=url, backoff_seconds=0.0))) as store:
        yield store


def furnish(store: Store, caller: Caller) -> Job:
    """A succeeded job with label, file and history; a teacher, a key, an answer, limits, device-seconds, acts."""
    ours = store.of(caller)
    store.api_keys.create(caller)
    store.tenants.limit(caller.tenant, {Quota.QUEUED_JOBS: 9})
    teacher, _ = ours.put_teacher(teacher_ref(caller.tenant))
    held = ours.keys.new_lease("k")
    assert ours.keys.acquire(held, 60) is None
    recorder: OutcomeRecorder[JobWithPosition] = OutcomeRecorder(held, fingerprint="f")
    job = ours.create(str(uuid.uuid4()), job_spec(team="vision"), teacher.id, recorder=recorder)
    claim = store.claim("w", 60, 1)
    assert claim is not None
    assert store.succeed(job.id, claim.fence, artifacts=[artifact_ref()])
    return job


def rows(connection: Connection, table: Table) -> list[Row[Any]]:
    """All that is there, without any condition."""
    return list(connection.execute(select(table)).all())


def everything(connection: Connection) -> dict[str, list[Row[Any]]]:
    return {table.name: sorted(rows(connection, table), key=str) for table in WALLED}


def of_umbrella(store: Store) -> dict[str, list[Row[Any]]]:
    """What a transaction of umbrella's finds when it asks for everything."""
    return store._database.of(UMBRELLA.tenant).read(everything)


def test_every_table_with_things_of_tenants_has_a_policy_that_binds_its_owner(ledger: Store) -> None:
    asked = "SELECT c.relname FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid"
    forced = f"{asked} WHERE c.relrowsecurity AND c.relforcerowsecurity AND p.polcmd = '*' AND p.polpermissive"
    found = ledger._database.read(lambda connection: connection.exec_driver_sql(forced).scalars().all())
    assert sorted(found) == sorted(table.name for table in WALLED)
    assert not any({"tenant", "job_number"} & set(table.c.keys()) for table in SHARED)


def test_a_tenant_that_asks_for_everything_gets_its_own(ledger: Store) -> None:
    both, own = ledger._database.read(everything), of_umbrella(ledger)
    for name, found in both.items():
        assert 2 * len(own[name]) == len(found) > 0, name
        assert set(own[name]) < set(found)
    assert {row.tenant for name in ("jobs", "usage", "audit", "tenants", "api_keys") for row in own[name]} == {
        "umbrella"
    }
    assert [row.id for row in own["teachers"]] == [digest("umbrella")]
    assert all(row.key.startswith("umbrella ") for row in own["requests"])


def test_the_default_tenants_keys_of_requests_are_those_without_a_name(ledger: Store) -> None:
    assert ledger.keys.acquire(ledger.keys.new_lease("plain"), 60) is None
    found = ledger._database.of("default").read(everything)
    assert [row.key for row in found.pop("requests")] == ["plain"]
    assert set(map(len, found.values())) == {0}


def test_a_name_is_never_a_part_of_the_statement(ledger: Store) -> None:
    assert setting("o'neil'; RESET ALL --") == "SET LOCAL dfkd.tenant = 'o''neil''; RESET ALL --'"
    assert set(map(len, ledger._database.of("acme' OR ''='").read(everything).values())) == {0}


@pytest.mark.parametrize("table", WALLED, ids=str)
def test_foreign_rows_are_neither_changed_nor_deleted(ledger: Store, table: Table) -> None:
    before = ledger._database.read(everything)
    column = next(column for column in table.c if not column.primary_key)

    def attempt(transaction: Transaction) -> None:
        connection = transaction.connection
        own = len(rows(connection, table))
        assert connection.execute(update(table).values({column.name: column})).rowcount == own
        connection.exec_driver_sql("SET LOCAL dfkd.tenant = 'nobody'")
        assert connection.execute(update(table).values({column.name: column})).rowcount == 0
        assert connection.execute(delete(table)).rowcount == 0
        assert connection.execute(select(table).with_for_update()).all() == []

    ledger._database.of(UMBRELLA.tenant).write(attempt)
    assert ledger._database.read(everything) == before


@pytest.mark.parametrize("table", WALLED, ids=str)
def test_foreign_rows_are_not_added(ledger: Store, table: Table) -> None:
    foreign = next(
        row for row in ledger._database.read(everything)[table.name] if row not in of_umbrella(ledger)[table.name]
    )
    copied = another(foreign)

    def attempt(transaction: Transaction) -> None:
        transaction.connection.execute(insert(table).values(copied))

    with pytest.raises(ProgrammingError, match="row-level security policy"):
        ledger._database.of(UMBRELLA.tenant).write(attempt)


def unnamed(store: Store) -> Database:
    """The same database, for transactions that name no tenant."""
    database = copy(store._database)
    database._tenant = None
    return database


def test_a_transaction_that_names_no_tenant_sees_no_rows(ledger: Store) -> None:
    assert set(map(len, unnamed(ledger).read(everything).values())) == {0}
    with psycopg.connect(ledger._database._engine.url.set(drivername="postgresql").render_as_string()) as connection:
        for table in WALLED:
            assert connection.execute(f"SELECT count(*) FROM {table.name}").fetchone() == (0,), table.name


@pytest.mark.parametrize("table", WALLED, ids=str)
def test_a_transaction_that_names_no_tenant_changes_nothing(ledger: Store, table: Table) -> None:
    before = ledger._database.read(everything)
    column = next(column for column in table.c if not column.primary_key)

    def attempt(transaction: Transaction) -> None:
        connection = transaction.connection
        assert connection.execute(update(table).values({column.name: column})).rowcount == 0
        assert connection.execute(delete(table)).rowcount == 0
        assert connection.execute(select(table).with_for_update()).all() == []

    unnamed(ledger).write(attempt)
    copied = another(before[table.name][0])
    with pytest.raises(ProgrammingError, match="row-level security policy"):
        unnamed(ledger).write(lambda t: t.connection.execute(insert(table).values(copied)))
    assert ledger._database.read(everything) == before


def another(row: Row[Any]) -> dict[str, Any]:
    """The row under a number or id of its own, so that only a policy can refuse it."""
    values = dict(row._mapping)
    if "number" in values:
        values["number"] += 1000
    if "id" in values:
        values["id"] = values["id"][::-1]
    return values


def test_the_errands_of_service_and_workers_act_for_all_tenants(ledger: Store, tmp_path: Path) -> None:
    first, second = (submit_for(ledger, tenant=tenant) for tenant in ("acme", "umbrella"))
    assert len(ledger.list(9).jobs) == 4
    assert set(ledger.sweep().notify) == {first.id, second.id}
    assert ledger.statistics(worker_seconds=60).jobs[JobState.QUEUED] == 2
    assert {caller.caller.tenant for caller in ledger.api_keys.usable().by_id.values()} == {"acme", "umbrella"}
    assert ledger.tenants.names() == ["acme", "umbrella"]
    assert {entry.tenant for entry in ledger.audit_log.read()} == {"acme", "umbrella"}
    claims = [ledger.claim("w", 60, 1) for _ in range(2)]
    assert {claim.job.id for claim in claims if claim is not None} == {first.id, second.id}
    for claim in claims:
        assert claim is not None
        assert ledger.heartbeat(claim.job.id, claim.fence, 60) is not None
        assert ledger.fail(claim.job.id, claim.fence, error=JobError(code="stopped", detail="for the test"))
    artifacts = ArtifactStore(Directory(tmp_path), temporary=tmp_path / "temporary")
    acts = collect_garbage(ledger, artifacts, retention_seconds=0.0)
    assert {act.what for act in acts if act.verb == "expire"} > {digest("acme"), digest("umbrella")}
    assert ledger.audit_log.delete_old(-1.0) > 0
    assert list(ledger.audit_log.read()) == []


def test_an_old_worker_sees_all_rows_until_it_ends(ledger: Store) -> None:
    """Workers of versions before revision 1_11 name no tenant, and do not write `names_tenants`."""
    old = insert(tables.workers).values(id="old", host="h", slots=1, device="cpu", started_at=now(), seen_at=now())
    ledger._database.write(lambda t: t.connection.execute(old))
    assert unnamed(ledger).read(everything) == ledger._database.read(everything)
    assert of_umbrella(ledger) != ledger._database.read(everything)
    an_hour_ago = update(tables.workers).where(tables.workers.c.id == "old").values(seen_at=now(-3600))
    ledger._database.write(lambda t: t.connection.execute(an_hour_ago))
    assert set(map(len, unnamed(ledger).read(everything).values())) == {0}
    ledger._database.write(lambda t: t.connection.execute(update(tables.workers).values(seen_at=now())))
    assert unnamed(ledger).read(everything) == ledger._database.read(everything)
    ledger.worker_gone("old")
    assert set(map(len, unnamed(ledger).read(everything).values())) == {0}


def test_ones_own_are_not_given_away(ledger: Store) -> None:
    with pytest.raises(ProgrammingError, match="row-level security policy"):
        ledger._database.of("umbrella").write(lambda t: t.connection.execute(update(tables.jobs).values(tenant="acme")))


def test_a_query_that_forgets_the_tenant_finds_nothing_foreign(ledger: Store) -> None:
    foreign = ledger._database.of("acme").read(lambda connection: rows(connection, tables.jobs))[0].id
    ours, theirs = ledger._database.of("umbrella"), ledger._database.of("acme")
    for forgetful in (
        queries.job_with_id,
        queries.job_with_position,
        queries.locked_row,
        queries.number_of,
        queries.teacher_id_of,
    ):
        assert theirs.write(lambda t, forgetful=forgetful: forgetful(t.connection, None, foreign))
        with pytest.raises(JobNotFound):
            ours.write(lambda t, forgetful=forgetful: forgetful(t.connection, None, foreign))
    page = ours.read(lambda c: queries.page(c, None, limit=9, cursor=None, states=None, labels={"team": "vision"}))
    assert [job.teacher.id for job in page.jobs] == [digest("umbrella")]
    assert ours.read(queries.count_by_state)[JobState.SUCCEEDED] == 1


def test_the_tenant_of_a_transaction_ends_with_it(ledger: Store) -> None:
    for _ in range(10):  # also when the driver has prepared the statement
        assert len(ledger._database.of("acme").read(lambda c: rows(c, tables.jobs))) == 1
        assert len(ledger._database.read(lambda c: rows(c, tables.jobs))) == 2
    assert ledger._database._engine.pool.status().startswith("Pool size: 20  Connections in pool: 1 ")


def test_a_queue_position_counts_all_jobs_and_then_row_security_is_back(ledger: Store) -> None:
    first, second = (submit_for(ledger, tenant=tenant) for tenant in ("acme", "umbrella"))
    assert ledger.of(UMBRELLA).get_with_position(second.id).queue_position == 2
    found = ledger.jobs_with_positions([("acme", first.id), ("umbrella", second.id), ("umbrella", first.id)])
    assert {key: told.queue_position for key, told in found.items()} == {
        ("acme", first.id): 1,
        ("umbrella", second.id): 2,
    }

    def told_and_after(transaction: Transaction) -> set[str]:
        queries.job_with_position(transaction.connection, "umbrella", second.id)
        with as_all_tenants(transaction.connection):
            assert len(rows(transaction.connection, tables.tenants)) == 2
        return {row.tenant for row in rows(transaction.connection, tables.jobs)}

    assert ledger._database.of("umbrella").write(told_and_after) == {"umbrella"}


def test_a_teacher_that_two_have_is_put_in_and_forgotten_as_if_each_were_alone(ledger: Store) -> None:
    ref = teacher_ref("of both")
    for caller in (ACME, UMBRELLA):
        assert ledger.of(caller).put_teacher(ref)[1]
    assert ledger.of(ACME).delete_teacher(ref.id).rows == {"teachers": 1}
    assert ledger.of(UMBRELLA).get_teacher(ref.id).id == ref.id
    assert ledger.referenced(ref.id)
    ledger.of(UMBRELLA).delete_teacher(ref.id)
    assert not ledger.referenced(ref.id)


def test_the_first_to_bring_a_teacher_is_not_told_apart_by_its_row(ledger: Store) -> None:
    ledger.of(ACME).put_teacher(teacher_ref("theirs"))
    seen = of_umbrella(ledger)["teachers"]
    assert digest("theirs") not in {row.id for row in seen}


def test_workers_claim_whosever_jobs_by_the_index_of_the_line(ledger: Store) -> None:
    ours, theirs = (submit_for(ledger, tenant=tenant) for tenant in ("acme", "umbrella"))
    statement = scheduling.next_job("postgresql", DeviceClass.CPU)
    told = statement.compile(ledger._database._engine, compile_kwargs={"literal_binds": True})

    def explained(connection: Connection) -> str:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        return "\n".join(connection.exec_driver_sql(f"EXPLAIN {told}".replace("%", "%%")).scalars())

    plan = ledger._database.read(explained)
    assert any("Index Cond" in step and "ROW(device_class, spec_version" in step for step in plan.splitlines())
    # The policies ask for workers of an older version. PostgreSQL runs that sub-query only where no tenant is named.
    scans = [step.strip() for step in plan.splitlines() if "Seq Scan" in step]
    assert all("Seq Scan on workers" in step for step in scans), plan
    claims = [ledger.claim("w", 60, 1) for _ in range(2)]
    assert {claim.job.id for claim in claims if claim is not None} == {ours.id, theirs.id}


def test_a_role_that_no_policy_binds_is_told(
    ledger: Store, postgres_server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    assert ledger.unbound_role() is None
    as_owner = postgres_server.url("ledger")
    as_superuser = as_owner.replace(f"{OWNER}@", f"{SUPERUSER}@")
    for url, expected in ((as_owner, []), (as_superuser, [SUPERUSER])):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "service.app"):
            asyncio.run(started_and_stopped(Settings(database_url=url)))
        assert [vars(line)["role"] for line in caplog.records if "row-level" in line.message] == expected


async def started_and_stopped(settings: Settings) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        pass


def test_sqlite_has_no_such_role(sqlite_url: str) -> None:
    store = open_store(Settings(database_url=sqlite_url))
    assert store.unbound_role() is None
    store.close()


def dumped_jobs(server: Postgres, **environment: str) -> int:
    """The number of jobs in a dump that the service's own role makes."""
    binaries = postgres_binaries(server.directory, None)
    words = ["--enable-row-security", "--data-only", "--inserts", "--table=jobs", "--host", str(server.directory)]
    done = subprocess.run(
        [binaries / "pg_dump", *words, "--username", OWNER, "ledger"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.count("INSERT INTO public.jobs ")


def test_a_backup_names_all_tenants(ledger: Store, postgres_server: Postgres) -> None:
    """The command of docs/operations.md; without PGOPTIONS the dump would have no rows."""
    assert dumped_jobs(postgres_server, PGOPTIONS=f"-c dfkd.tenant={ALL_TENANTS}") == 2
    assert dumped_jobs(postgres_server) == 0
