"""Requests with a key: the first is answered and its answer kept, the same again gets that answer.

A request holds its key from before its body is read, by a lease, so that a process that was killed does not keep it.
The answer is written in the transaction that brings about what it tells: there is no job without its answer, and no
answer without its job. Nothing here knows what an answer looks like.

Keys are a tenant's: another tenant's key of the same text is another key.
"""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, delete, select, update

from jobs.db import tables
from jobs.db.database import Database, Transaction, dialect_insert
from jobs.db.db_time import elapsed_seconds, now
from jobs.errors import RequestInProgress
from jobs.identity import DEFAULT_TENANT
from jobs.ledger import queries
from jobs.models import Job, JobWithPosition

T = TypeVar("T")

KEPT_SECONDS = 86400.0
"""How long an answer is kept."""
_BATCH = 500  # values in one statement; SQLite allows some thousands

_requests = tables.requests


@dataclass(frozen=True, slots=True)
class KeyLease:
    """A key that is ours: the token guards every write."""

    key: str  # as it is called in the table
    token: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """How an earlier request with a key was answered, and which request that was."""

    fingerprint: str
    text: str


@dataclass(frozen=True, slots=True)
class ResponseRecorder(Generic[T]):
    """What is to be told of an outcome, and for which request it is kept."""

    answer: Callable[[T], str]  # called within the transaction, and again where that is tried again
    held: KeyLease | None  # None: the request has no key, nothing is kept
    fingerprint: str


def hold(transaction: Transaction, held: KeyLease, *, lease_seconds: float) -> StoredResponse | None:
    """Hold a key for `lease_seconds`. The answer where there is one already; RequestInProgress."""
    connection = transaction.connection
    if _insert(connection, held, lease_seconds=lease_seconds):
        return None
    row = _lock(connection, held.key)
    if row is None:
        raise RequestInProgress(1.0)  # it was refused just now
    if row.answer is not None and not row.expired:
        return StoredResponse(fingerprint=row.fingerprint, text=row.answer)
    if row.answer is None and row.left_seconds > 0 and row.token != held.token:
        raise RequestInProgress(row.left_seconds)
    values = _new(held, lease_seconds=lease_seconds) | {"fingerprint": None, "answer": None, "about": None}
    connection.execute(update(_requests).where(_requests.c.key == held.key).values(values))
    return None


def renew(transaction: Transaction, held: KeyLease, *, lease_seconds: float) -> bool:
    """Hold on to a key; False where somebody else has it."""
    statement = update(_requests).where(*_ours(held)).values(lease_until=now(lease_seconds))
    return transaction.connection.execute(statement).rowcount == 1


def settle(transaction: Transaction, receipt: ResponseRecorder[T], outcome: T, *, about: str) -> None:
    """Tell the outcome, and keep what is told until `about`, the job or teacher, is deleted.

    RequestInProgress, which undoes it all, where the key was lost.
    """
    text = receipt.answer(outcome)
    if receipt.held is None:
        return
    values = {"fingerprint": receipt.fingerprint, "answer": text, "about": about, "expires_at": now(KEPT_SECONDS)}
    statement = update(_requests).where(*_ours(receipt.held)).values(values)
    if transaction.connection.execute(statement).rowcount == 0:
        raise RequestInProgress(1.0)


def let_go(transaction: Transaction, held: KeyLease) -> None:
    """Free a key that has no answer: the request was refused."""
    statement = delete(_requests).where(*_ours(held), _requests.c.answer.is_(None))
    transaction.connection.execute(statement)


def forget_old(transaction: Transaction) -> int:
    """Remove what is kept no longer; how many there were."""
    return transaction.connection.execute(delete(_requests).where(_requests.c.expires_at < now())).rowcount


def forget_about(transaction: Transaction, tenant: str, about: Sequence[str]) -> int:
    """Remove the answers to a tenant's requests that tell of these jobs and teachers; how many there were."""
    gone = 0
    for start in range(0, len(about), _BATCH):
        batch = _requests.c.about.in_(about[start : start + _BATCH])
        gone += transaction.connection.execute(delete(_requests).where(batch, _of_tenant(tenant))).rowcount
    return gone


def told(
    transaction: Transaction, tenant: str | None, job_id: str, receipt: ResponseRecorder[JobWithPosition] | None
) -> Job:
    """The job as it is now; its standing is told within the transaction, if anybody is to be told."""
    if receipt is None:
        return queries.job_with_id(transaction.connection, tenant, job_id)
    standing = queries.job_with_position(transaction.connection, tenant, job_id)
    settle(transaction, receipt, standing, about=job_id)
    return standing.job


class Keys:
    """The keys of a tenant's requests, one transaction a method: `TenantStore.keys`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    def new_lease(self, key: str) -> KeyLease:
        """What holding a key of this tenant takes; `hold` does it."""
        return KeyLease(_name(self._tenant, key), uuid.uuid4().hex)

    def hold(self, held: KeyLease, lease_seconds: float) -> StoredResponse | None:
        """Hold a key for `lease_seconds`. The answer where there is one already; RequestInProgress."""
        return self._database.write(lambda t: hold(t, held, lease_seconds=lease_seconds))

    def renew(self, held: KeyLease, lease_seconds: float) -> bool:
        """Hold on to a key; False where somebody else has it."""
        return self._database.write(lambda t: renew(t, held, lease_seconds=lease_seconds))

    def let_go(self, held: KeyLease) -> None:
        """Free a key, unless there is an answer by now."""
        self._database.write(lambda t: let_go(t, held))

    def forget_old(self) -> int:
        """Remove answers that are kept no longer, and keys of the dead; how many there were."""
        return self._database.write(forget_old)


def _name(tenant: str, key: str) -> str:
    """What a key is called in the table, where keys of older services stand as they are. No key has a space in it."""
    return key if tenant == DEFAULT_TENANT else f"{tenant} {hashlib.sha256(key.encode()).hexdigest()}"


def _of_tenant(tenant: str) -> ColumnElement[bool]:
    """The keys that `_name` gives to this tenant."""
    if tenant == DEFAULT_TENANT:
        return ~_requests.c.key.contains(" ")
    return _requests.c.key.startswith(f"{tenant} ", autoescape=True)


def _insert(connection: Connection, held: KeyLease, *, lease_seconds: float) -> bool:
    statement = dialect_insert(connection, _requests).values(_new(held, lease_seconds=lease_seconds))
    return connection.execute(statement.on_conflict_do_nothing().returning(_requests.c.key)).first() is not None


def _new(held: KeyLease, *, lease_seconds: float) -> dict[str, Any]:
    return {
        "key": held.key,
        "token": held.token,
        "lease_until": now(lease_seconds),
        "expires_at": now(KEPT_SECONDS),
    }


def _lock(connection: Connection, key: str) -> Row[Any] | None:
    left_seconds = elapsed_seconds(_requests.c.lease_until, now()).label("left_seconds")
    statement = select(_requests, left_seconds, (_requests.c.expires_at < now()).label("expired"))
    return connection.execute(statement.where(_requests.c.key == key).with_for_update()).one_or_none()


def _ours(held: KeyLease) -> list[ColumnElement[bool]]:
    return [_requests.c.key == held.key, _requests.c.token == held.token]
