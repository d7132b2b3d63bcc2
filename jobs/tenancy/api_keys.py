"""API keys: a key is made here, shown once, and stored as a digest.

A key has the form `dfkd_ID_SECRET`. ID is public and has sixteen hexadecimal digits; SECRET has sixty-four (256 random
bits). The row of a revoked key stays, because a service that ever had a key must go on asking for one.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, or_, select, update

from jobs.db import tables
from jobs.db.database import Database
from jobs.db.db_time import elapsed_seconds, now
from jobs.identity import Caller, Scope

TOKEN = re.compile(rb"dfkd_([0-9a-f]{16})_([0-9a-f]{64})")

_keys = tables.api_keys


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret."""

    id: str
    name: str | None  # for people
    tenant: str
    priority: int
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None  # to the hour


@dataclass(frozen=True, slots=True)
class Credential:
    """The values that are needed to check a key in a request."""

    sha256: str  # of the secret, hexadecimal
    caller: Caller
    left_seconds: float | None  # None: it does not expire


@dataclass(frozen=True, slots=True)
class Usable:
    """All keys that are valid at one moment."""

    by_id: dict[str, Credential]
    ever: bool  # whether there is or was any key


def digest_of(secret: bytes) -> str:
    """Return the digest that is stored of a secret. One fast hash suffices, because the secret is long and random."""
    return hashlib.sha256(secret).hexdigest()


class ApiKeys:
    """The API keys of the ledger (`Store.api_keys`). Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        caller: Caller,
        *,
        name: str | None = None,
        valid_seconds: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key with the caller's tenant, priority and scopes; return its row and the key, which is not stored."""
        key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
        values = {
            "id": key_id,
            "sha256": digest_of(secret.encode()),
            "name": name,
            "tenant": caller.tenant,
            "priority": caller.priority,
            "scopes": " ".join(sorted(caller.scopes)),
            "created_at": now(),
            "expires_at": None if valid_seconds is None else now(valid_seconds),
        }
        statement = insert(_keys).values(values).returning(*_keys.c)
        made = self._database.write(lambda t: _key_from_row(t.connection.execute(statement).one()))
        return made, f"dfkd_{key_id}_{secret}"

    def revoke(self, key_id: str) -> ApiKey | None:
        """Revoke a key and return it; return None if there is no such key. A revoked key stays as it is."""
        statement = update(_keys).where(_keys.c.id == key_id, _keys.c.revoked_at.is_(None)).values(revoked_at=now())

        def work(connection: Connection) -> ApiKey | None:
            connection.execute(statement)
            row = connection.execute(select(_keys).where(_keys.c.id == key_id)).one_or_none()
            return None if row is None else _key_from_row(row)

        return self._database.write(lambda t: work(t.connection))

    def list(self) -> Sequence[ApiKey]:
        """Return all keys, the oldest first."""
        statement = select(_keys).order_by(_keys.c.created_at, _keys.c.id)
        return self._database.read(lambda c: [_key_from_row(row) for row in c.execute(statement)])

    def usable(self) -> Usable:
        """Return the keys that are neither revoked nor expired."""
        return self._database.read(_usable)

    def note_use(self, key_ids: Iterable[str]) -> None:
        """Record that these keys were used now."""
        statement = update(_keys).where(_keys.c.id.in_(list(key_ids))).values(last_used_at=now())
        self._database.write(lambda t: t.connection.execute(statement).rowcount)


def _usable(connection: Connection) -> Usable:
    left = elapsed_seconds(_keys.c.expires_at, now()).label("left_seconds")
    valid = or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > now())
    rows = connection.execute(select(_keys, left).where(_keys.c.revoked_at.is_(None), valid)).all()
    found = {row.id: _credential_from_row(row) for row in rows}
    ever = bool(found) or bool(connection.execute(select(exists().where(_keys.c.id.is_not(None)))).scalar_one())
    return Usable(found, ever)


def _credential_from_row(row: Row[Any]) -> Credential:
    caller = Caller(row.tenant, row.priority, _scopes(row.scopes), row.id)
    return Credential(row.sha256, caller, None if row.expires_at is None else float(row.left_seconds))


def _key_from_row(row: Row[Any]) -> ApiKey:
    kept = {name: value for name, value in row._mapping.items() if name not in {"sha256", "scopes"}}
    return ApiKey(**kept, scopes=_scopes(row.scopes))


def _scopes(text: str) -> frozenset[Scope]:
    """Return the scopes that this version knows; scopes of a newer version are ignored."""
    return frozenset(scope for scope in Scope if scope in text.split())
