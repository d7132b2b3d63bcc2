"""The cache of keys: it is read seldom, expires soon, and never admits a revoked key after its expiry."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from sqlalchemy import event, text

from jobs.errors import LedgerUnavailable
from jobs.identity import Caller
from jobs.settings import Settings
from jobs.store import Store, open_store
from service import key_cache
from service.key_cache import KeyCache
from tests.patience import PATIENCE, scaled

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine: a read of the keys is waited for, and what was read stays fresh for the test."""
    monkeypatch.setattr(key_cache, "PATIENCE_SECONDS", PATIENCE)
    monkeypatch.setattr(key_cache, "FRESH_SECONDS", PATIENCE)
    monkeypatch.setattr(key_cache, "KEPT_SECONDS", 2 * PATIENCE)


@pytest.fixture
def ledger(sqlite_url: str) -> Iterator[Store]:
    opened = open_store(Settings(database_url=sqlite_url))
    yield opened
    opened.close()


@contextmanager
def away(ledger: Store) -> Iterator[None]:
    """The keys cannot be read."""
    for before, after in (("api_keys", "elsewhere"), ("elsewhere", "api_keys")):
        with ledger._database.connected(writes=True) as connection:
            connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))
            connection.commit()
        if before == "api_keys":
            yield


@contextmanager
def looks(ledger: Store) -> Iterator[list[str]]:
    """The statements about keys that the database is asked meanwhile."""
    asked: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "api_keys" in statement:
            asked.append(statement)

    event.listen(ledger._database._engine, "before_cursor_execute", note)
    yield asked
    event.remove(ledger._database._engine, "before_cursor_execute", note)


def run(act: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await act()

    return asyncio.run(main())


def test_a_thousand_requests_cost_one_look_at_the_ledger(ledger: Store) -> None:
    _, key = ledger.api_keys.create(Caller("acme", 5))

    async def act() -> None:
        ring = KeyCache(ledger.api_keys)
        with looks(ledger) as asked:
            for _ in range(1000):
                caller = await ring.caller(key.encode())
                assert caller is not None
                assert (caller.tenant, caller.priority) == ("acme", 5)
        assert len(asked) == 1

    run(act)


def test_made_up_keys_cost_no_more(ledger: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "STRANGE_SECONDS", 60.0)
    ledger.api_keys.create(Caller())

    async def act() -> None:
        ring = KeyCache(ledger.api_keys)
        with looks(ledger) as asked:
            for number in range(500):
                assert await ring.caller(f"dfkd_{number:016x}_{number:064x}".encode()) is None
        assert len(asked) == 1

    run(act)


def test_many_at_once_share_one_look(ledger: Store) -> None:
    _, key = ledger.api_keys.create(Caller())

    async def act() -> None:
        ring = KeyCache(ledger.api_keys)
        with looks(ledger) as asked:
            assert None not in await asyncio.gather(*(ring.caller(key.encode()) for _ in range(50)))
        assert len(asked) == 1

    run(act)


def test_a_key_that_was_made_just_now_is_looked_for(ledger: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "STRANGE_SECONDS", 0.0)

    async def act() -> None:
        ring = KeyCache(ledger.api_keys)
        assert not await ring.in_use()
        made, key = ledger.api_keys.create(Caller())
        assert await ring.caller(key.encode()) is not None
        assert ring.take_used() == {made.id}
        assert await ring.caller(key.encode()) is not None
        assert ring.take_used() == set()  # noted already in this hour

    run(act)


def test_a_revoked_key_is_refused_as_soon_as_the_ledger_is_asked_again(
    ledger: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, key = ledger.api_keys.create(Caller())

    async def act() -> None:
        ring = KeyCache(ledger.api_keys)
        caller = await ring.caller(key.encode())
        assert caller is not None
        ledger.api_keys.revoke(made.id)
        assert await ring.still_valid(caller)
        monkeypatch.setattr(key_cache, "FRESH_SECONDS", 0.0)
        assert await ring.caller(key.encode()) is None
        assert not await ring.still_valid(caller)

    run(act)


def test_a_key_expires_without_another_look(ledger: Store) -> None:
    valid_seconds = scaled(0.5)
    _, key = ledger.api_keys.create(Caller(), valid_seconds=valid_seconds)

    async def act() -> None:
        ring = KeyCache(ledger.api_keys)
        assert await ring.caller(key.encode()) is not None
        await asyncio.sleep(valid_seconds + 0.1)
        assert await ring.caller(key.encode()) is None

    run(act)


def test_without_the_ledger_what_was_known_counts_for_a_while(
    ledger: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger=key_cache.log.name)  # whatever other tests' libraries have done to logging
    monkeypatch.setattr(key_cache.log, "disabled", False)
    _, key = ledger.api_keys.create(Caller())

    async def act() -> None:
        ring = KeyCache(ledger.api_keys)
        assert await ring.caller(key.encode()) is not None
        monkeypatch.setattr(key_cache, "FRESH_SECONDS", 0.0)
        with away(ledger):
            assert await ring.caller(key.encode()) is not None
            monkeypatch.setattr(key_cache, "KEPT_SECONDS", 0.0)
            with pytest.raises(LedgerUnavailable):
                await ring.caller(key.encode())
            with pytest.raises(LedgerUnavailable):
                await KeyCache(ledger.api_keys).caller(key.encode())
        monkeypatch.setattr(key_cache, "KEPT_SECONDS", 2 * PATIENCE)
        assert await ring.caller(key.encode()) is not None

    run(act)
    assert "the API keys could not be read" in caplog.text
    assert key.rpartition("_")[2] not in caplog.text
