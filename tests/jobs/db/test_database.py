"""The ledger when the database is locked, restarted, unreachable, or loses the reply to a commit."""

import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psutil
import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from jobs.db import tables
from jobs.db.database import Transaction
from jobs.errors import JobNotFound, LedgerUnavailable
from jobs.models import JobState
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import artifact_ref, digest, submit
from tests.patience import PATIENCE
from tests.servers import Postgres, short_directory


class Proxy:
    """Stands between psycopg and PostgreSQL; loses one COMMIT, or only the reply to it."""

    def __init__(self, listener: socket.socket, target: str) -> None:
        self.lose: str | None = None  # "commit" or "reply"
        self.lost = 0
        self._listener, self._target = listener, target

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        while data := _received(client):
            if self.lose is not None and b"COMMIT" in data:
                lose, self.lose = self.lose, None
                self.lost += 1
                client.shutdown(socket.SHUT_RDWR)
                if lose == "reply":
                    server.sendall(data)
                break
            server.sendall(data)
        with suppress(OSError):  # closed by the other direction already
            server.shutdown(socket.SHUT_WR)


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with source, sink:
        while data := _received(source):
            try:
                sink.sendall(data)
            except OSError:
                return


@contextmanager
def proxy_before(server: Postgres) -> Iterator[tuple[Proxy, str]]:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / ".s.PGSQL.5432"))
        listener.listen()
        proxy = Proxy(listener, str(server.directory / ".s.PGSQL.5432"))
        thread = threading.Thread(target=proxy.serve)
        thread.start()
        yield proxy, f"postgresql+psycopg://dfkd@/postgres?host={directory}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def claim_one(store: Store) -> object:
    return store.claim("me", 60, 1)


def succeed_one(store: Store) -> object:
    (job,) = store.list(10, states=[JobState.RUNNING]).jobs
    return store.succeed(job.id, job.fence, artifacts=[artifact_ref()])


def release_one(store: Store) -> object:
    (job,) = store.list(10, states=[JobState.RUNNING]).jobs
    return store.release(job.id, job.fence, reason="drained", charged=True)


def cancel_one(store: Store) -> object:
    return store.request_cancel(store.list(1).jobs[0].id)


def delete_one(store: Store) -> object:
    return store.delete(store.list(1).jobs[0].id).files == {}


STEPS: list[tuple[Callable[[Store], object], list[str]]] = [
    (submit, ["created"]),
    (claim_one, ["claimed"]),
    (release_one, ["released"]),
    (claim_one, ["claimed"]),
    (succeed_one, ["succeeded"]),
    (submit, ["created"]),
    (cancel_one, ["cancelled"]),
]


@pytest.mark.parametrize("lose", ["reply", "commit"])
def test_a_commit_in_doubt_takes_place_exactly_once(postgres_server: Postgres, postgres_url: str, lose: str) -> None:
    with proxy_before(postgres_server) as (proxy, url):
        store = open_store(Settings(database_url=url, backoff_seconds=0.0))
        store.put_teacher(submit(store).teacher)
        store.request_cancel(store.list(1).jobs[0].id)
        store.delete(store.list(1).jobs[0].id)
        for step, kinds in STEPS:
            before = {job.id: len(store.events(job.id)) for job in store.list(10).jobs}
            proxy.lose = lose
            assert step(store)
            written = [e.kind for job in store.list(10).jobs for e in store.events(job.id, before.get(job.id, 0))]
            assert written == kinds
        proxy.lose = lose
        assert delete_one(store)
        assert [job.state for job in store.list(10).jobs] == [JobState.SUCCEEDED]
        assert proxy.lost == len(STEPS) + 1
        store.close()


def test_connections_that_the_server_cut_are_replaced(postgres_server: Postgres, postgres_url: str) -> None:
    store = open_store(Settings(database_url=postgres_url))
    job = submit(store)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'dfkd'"
    for ask in (lambda: store.get(job.id), lambda: store.claim("me", 60, 1), store.ping):
        with postgres_server.connect() as connection:
            connection.execute(others)
        ask()
    assert store.get(job.id).attempt == 1
    store.close()


def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    store = open_store(Settings(database_url=postgres_url))
    first, second = submit(store), submit(store)
    both_hold_one = threading.Barrier(2, timeout=PATIENCE)
    tries: list[int] = []

    def cross(mine: str, other: str) -> None:
        def work(transaction: Transaction) -> None:
            tries.append(1)
            for job_id in (mine, other):
                statement = update(tables.jobs).where(tables.jobs.c.id == job_id)
                transaction.connection.execute(statement.values(step=tables.jobs.c.step + 1))
                if job_id == mine and len(tries) <= 2:
                    both_hold_one.wait()

        store._database.write(work)

    threads = [threading.Thread(target=cross, args=pair) for pair in ((first.id, second.id), (second.id, first.id))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(tries) == 3
    assert [store.get(job.id).progress.step for job in (first, second)] == [2, 2]
    store.close()


def test_a_lock_on_sqlite_is_waited_for(sqlite_url: str) -> None:
    store = open_store(Settings(database_url=sqlite_url))
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE").close()
        written = threading.Event()
        thread = threading.Thread(target=lambda: (submit(store), written.set()))
        thread.start()
        assert store.list(10).jobs == []  # readers are not held up
        assert not written.wait(0.3)
        blocker.execute("ROLLBACK").close()
        assert written.wait(PATIENCE)
        thread.join()
    assert len(store.list(10).jobs) == 1
    store.close()


def test_a_read_without_waiting_waits_for_no_lock(sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(open_store(Settings(database_url=sqlite_url))) as store:
        job = submit(store)
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            assert store.get_nowait(job.id) == job == store.get(job.id)
        with pytest.raises(JobNotFound):
            store.get_nowait("nobody")
        store.close()  # or nobody could lock readers out
        with closing(sqlite3.connect(path, isolation_level=None)) as owner:
            owner.execute("PRAGMA locking_mode=EXCLUSIVE")
            owner.execute("BEGIN EXCLUSIVE")
            assert store.get_nowait(job.id) is None
        assert store.get_nowait(job.id) == job


def test_a_read_without_waiting_is_not_tried_on_postgresql(postgres_url: str) -> None:
    with closing(open_store(Settings(database_url=postgres_url))) as store:
        assert store.get_nowait(submit(store).id) is None


@pytest.mark.parametrize("url", ["postgresql+psycopg://dfkd@/postgres?host=/nonexistent", "sqlite:////dev/null/x/y"])
def test_an_unreachable_database_is_told_soon(url: str) -> None:
    start = time.monotonic()
    with pytest.raises((LedgerUnavailable, NotADirectoryError)):
        open_store(Settings(database_url=url))
    assert time.monotonic() - start < 60  # the default of the operating system is minutes


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a file"):
        open_store(Settings(database_url="sqlite://"))


def test_sqlite_is_durable_and_checks_references(sqlite_url: str) -> None:
    store = open_store(Settings(database_url=sqlite_url))
    with store._database.connected(writes=False) as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    store.close()


def test_postgres_statements_have_a_time_limit(postgres_url: str) -> None:
    store = open_store(Settings(database_url=postgres_url))
    start = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="statement timeout"):
        store._database.read(lambda connection: connection.execute(text("SELECT pg_sleep(100)")).all())
    assert time.monotonic() - start < 60
    store.close()


def test_a_hung_server_holds_nobody_up_and_works_again_afterwards(postgres_server: Postgres, postgres_url: str) -> None:
    store = open_store(Settings(database_url=postgres_url))
    job = submit(store)
    claim = store.claim("me", 60, 1)
    assert claim is not None
    with stopped(postgres_server):
        for ask in (lambda: store.get(job.id), lambda: store.heartbeat(job.id, claim.fence, 60)):
            start = time.monotonic()
            with pytest.raises(LedgerUnavailable):
                ask()
            assert time.monotonic() - start < 60
    assert store.heartbeat(job.id, claim.fence, 60) is not None
    store.close()


@contextmanager
def stopped(server: Postgres) -> Iterator[None]:
    """Every process of the server, hung."""
    main = psutil.Process(server.pid)
    family = [main, *main.children()]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


IMPOSSIBLE = [
    {"state": "running"},  # without a lease
    {"lease_until": "now"},  # without running
    {"state": "unheard-of"},
    {"state": "succeeded"},  # without an end
    {"error": "{}"},  # without having failed
]


def test_the_database_itself_refuses_impossible_rows(store: Store) -> None:
    job = submit(store)
    for values in IMPOSSIBLE:
        sets = {name: tables.jobs.c.created_at if value == "now" else value for name, value in values.items()}
        if "lease_until" in sets:
            sets["owner"] = "me"
        statement = update(tables.jobs).where(tables.jobs.c.id == job.id).values(sets)
        with pytest.raises(IntegrityError):
            store._database.write(lambda transaction, statement=statement: transaction.connection.execute(statement))
        assert store.get(job.id) == job


def test_an_error_inside_a_transaction_leaves_nothing(store: Store) -> None:
    job = submit(store)
    store.claim("me", 60, 1)
    twice = [artifact_ref(), artifact_ref()]
    with pytest.raises(IntegrityError):
        store.succeed(job.id, 1, artifacts=twice)
    after = store.get(job.id)
    assert (after.state, after.artifacts, len(store.events(job.id))) == (JobState.RUNNING, [], 2)
    assert not store.referenced(digest("student"))


def test_several_may_create_the_tables_at_once(database_url: str) -> None:
    start = threading.Barrier(4, timeout=PATIENCE)
    opened: list[Store] = []

    def open_one() -> None:
        start.wait()
        opened.append(open_store(Settings(database_url=database_url)))

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    job = submit(opened[0])
    for store in opened:
        assert store.get(job.id) == job
        store.close()
