"""API keys in the ledger: kept as digests, valid until they expire or are revoked."""

import re

from sqlalchemy import text

from jobs.identity import Caller, Scope
from jobs.store import Store
from jobs.tenancy.api_keys import TOKEN, digest_of
from tests.jobs.clockwork import age_key
from tests.patience import PATIENCE

READER = Caller("acme", 3, frozenset({Scope.JOBS_READ}))


def test_a_key_can_be_found_by_its_form_and_is_256_random_bits(store: Store) -> None:
    made, first = store.api_keys.create(READER)
    _, second = store.api_keys.create(READER)
    match = TOKEN.fullmatch(first.encode())
    assert match is not None
    assert match[1].decode() == made.id
    assert len(match[2]) * 4 == 256
    assert re.match(r"dfkd_[0-9a-f]{16}_", second)
    assert first.split("_")[2] != second.split("_")[2]


def test_the_ledger_holds_a_digest_and_nothing_of_the_secret(store: Store) -> None:
    made, key = store.api_keys.create(READER, name="of a test")
    secret = key.rpartition("_")[2]
    with store._database.connected(writes=False) as connection:
        (row,) = connection.execute(text("SELECT * FROM api_keys")).all()
    assert digest_of(secret.encode()) in row
    assert not any(secret[:8] in str(value) for value in row)
    assert secret not in repr(made) + repr(store.api_keys.usable()) + repr(store.api_keys.list())


def test_a_usable_key_says_whose_it_is_and_what_it_may(store: Store) -> None:
    made, key = store.api_keys.create(READER)
    credential = store.api_keys.usable().by_id[made.id]
    assert credential.sha256 == digest_of(key.rpartition("_")[2].encode())
    assert credential.caller == Caller("acme", 3, frozenset({Scope.JOBS_READ}), made.id)
    assert credential.left_seconds is None


def test_an_expired_or_revoked_key_is_not_usable_and_is_remembered(store: Store) -> None:
    assert not store.api_keys.usable().ever
    short, _ = store.api_keys.create(READER, valid_seconds=0.0)
    age_key(store, short.id, 1.0)  # SQLite's times are milliseconds: keys of the same one are of the same age
    long, _ = store.api_keys.create(READER, valid_seconds=3600.0)
    left = store.api_keys.usable().by_id[long.id].left_seconds
    assert left is not None
    assert 3600 - PATIENCE < left <= 3600.01  # the ledger's times are rounded
    revoked = store.api_keys.revoke(long.id)
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert store.api_keys.usable().by_id == {}
    assert store.api_keys.usable().ever
    assert [key.id for key in store.api_keys.list()] == [short.id, long.id]


def test_a_key_is_revoked_once_and_another_is_not(store: Store) -> None:
    made, _ = store.api_keys.create(READER)
    other, _ = store.api_keys.create(READER)
    first = store.api_keys.revoke(made.id)
    assert store.api_keys.revoke(made.id) == first
    assert store.api_keys.revoke("0" * 16) is None
    assert set(store.api_keys.usable().by_id) == {other.id}


def test_the_last_use_is_noted(store: Store) -> None:
    made, other = store.api_keys.create(READER)[0], store.api_keys.create(READER)[0]
    store.api_keys.note_use({made.id})
    last = {key.id: key.last_used_at for key in store.api_keys.list()}
    assert last[made.id] is not None
    assert last[other.id] is None


def test_a_scope_of_a_newer_version_allows_nothing(store: Store) -> None:
    made, _ = store.api_keys.create(READER)
    with store._database.connected(writes=True) as connection:
        connection.execute(text("UPDATE api_keys SET scopes = 'jobs:read jobs:everything'"))
        connection.commit()
    assert store.api_keys.usable().by_id[made.id].caller.scopes == {Scope.JOBS_READ}
