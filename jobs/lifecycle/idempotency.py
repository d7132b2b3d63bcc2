"""Idempotency keys: the first request with a key is carried out, and a repetition finds its outcome.

A request takes its key as a lease before its body is read, so that a process that was killed does not keep the key.
The outcome is stored in the transaction that causes it: no job exists without its outcome, and no outcome without its
job. The outcome is a value of the ledger; how a response is made of it is the service's concern.

Keys belong to a tenant: the same text is another key for another tenant.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from sqlalchemy import ColumnElement, Connection, Row, delete, select, update

from jobs.db import tables
from jobs.db.database import Database, Transaction, dialect_insert
from jobs.db.db_time import elapsed_seconds, now
from jobs.db.transactional import in_transaction
from jobs.errors import RequestInProgress
from jobs.identity import DEFAULT_TENANT
from jobs.ledger import queries
from jobs.models import Job, JobWithPosition, TeacherRef

T = TypeVar("T")

OUTCOME_SECONDS = 86400.0
"""How long an outcome is kept."""
_BATCH = 500  # values in one statement; SQLite allows some thousands

JOB_OUTCOME = TypeAdapter(JobWithPosition)
"""Reads a stored outcome of a request that creates or changes a job."""
TEACHER_OUTCOME = TypeAdapter(tuple[TeacherRef, bool])
"""Reads a stored outcome of a request that uploads a teacher: the teacher, and whether it is new."""

_requests = tables.requests


@dataclass(frozen=True, slots=True)
class KeyLease:
    """A key that a request has taken: every write names the token."""

    key: str  # the name of the key in the table
    token: str


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """What is stored of an earlier request with a key, and the fingerprint of that request."""

    fingerprint: str
    text: str  # a JSON object: the recorder's note and `outcome`; rows of older versions have no `outcome`


@dataclass(slots=True)
class OutcomeRecorder(Generic[T]):
    """Takes the outcome of one request out of the transaction that causes it."""

    lease: KeyLease | None  # None: the request has no key, and nothing is stored
    fingerprint: str
    note: Mapping[str, Any] = field(default_factory=dict)  # JSON that is stored beside the outcome
    outcome: T | None = None  # set within the transaction, and again if the transaction is tried again


def acquire_key(transaction: Transaction, lease: KeyLease, lease_seconds: float) -> StoredOutcome | None:
    """Take a key for `lease_seconds`, or return the outcome that is stored for it.

    Raises:
        RequestInProgress: another request holds the key.
    """
    connection = transaction.connection
    if _insert(connection, lease, lease_seconds=lease_seconds):
        return None
    row = _lock(connection, lease.key)
    if row is None:
        raise RequestInProgress(1.0)  # the other request was refused just now, and its key released
    if row.answer is not None and not row.expired:
        return StoredOutcome(fingerprint=row.fingerprint, text=row.answer)
    if row.answer is None and row.left_seconds > 0 and row.token != lease.token:
        raise RequestInProgress(row.left_seconds)
    values = _leased(lease, lease_seconds=lease_seconds) | {"fingerprint": None, "answer": None, "about": None}
    connection.execute(update(_requests).where(_requests.c.key == lease.key).values(values))
    return None


def renew_key(transaction: Transaction, lease: KeyLease, lease_seconds: float) -> bool:
    """Extend a lease; False if another request has taken the key."""
    statement = update(_requests).where(*_held_by(lease)).values(lease_until=now(lease_seconds))
    return transaction.connection.execute(statement).rowcount == 1


def record(transaction: Transaction, recorder: OutcomeRecorder[T], outcome: T, *, about: str) -> None:
    """Hand the outcome to the recorder; for a request with a key, store it until `about`, a job or teacher, is deleted.

    Raises:
        RequestInProgress: another request has taken the key. The error undoes the transaction.
    """
    recorder.outcome = outcome
    if recorder.lease is None:
        return
    text = json.dumps({**recorder.note, "outcome": to_jsonable_python(outcome)})
    values = {"fingerprint": recorder.fingerprint, "answer": text, "about": about, "expires_at": now(OUTCOME_SECONDS)}
    statement = update(_requests).where(*_held_by(recorder.lease)).values(values)
    if transaction.connection.execute(statement).rowcount == 0:
        raise RequestInProgress(1.0)


def record_job(
    transaction: Transaction, tenant: str | None, job_id: str, recorder: OutcomeRecorder[JobWithPosition] | None
) -> Job:
    """Return the job as it is in this transaction; a recorder, if there is one, gets it with its place in the queue."""
    if recorder is None:
        return queries.job_with_id(transaction.connection, tenant, job_id)
    found = queries.job_with_position(transaction.connection, tenant, job_id)
    record(transaction, recorder, found, about=job_id)
    return found.job


def release_key(transaction: Transaction, lease: KeyLease) -> None:
    """Release a key that has no outcome, because its request was refused."""
    statement = delete(_requests).where(*_held_by(lease), _requests.c.answer.is_(None))
    transaction.connection.execute(statement)


def delete_expired_keys(transaction: Transaction) -> int:
    """Delete the rows whose time is over; returns how many there were."""
    return transaction.connection.execute(delete(_requests).where(_requests.c.expires_at < now())).rowcount


def delete_outcomes_about(transaction: Transaction, tenant: str, about: Sequence[str]) -> int:
    """Delete the outcomes of a tenant's requests that are about these jobs and teachers; returns their number."""
    gone = 0
    for start in range(0, len(about), _BATCH):
        batch = _requests.c.about.in_(about[start : start + _BATCH])
        gone += transaction.connection.execute(delete(_requests).where(batch, _of_tenant(tenant))).rowcount
    return gone


class Keys:
    """The idempotency keys of one tenant (`TenantStore.keys`). Each method is one transaction."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    def new_lease(self, key: str) -> KeyLease:
        """Return the lease with which a request of this tenant takes a key; `acquire` takes it."""
        return KeyLease(_name(self._tenant, key), uuid.uuid4().hex)

    acquire = in_transaction(acquire_key)
    renew = in_transaction(renew_key)
    release = in_transaction(release_key)
    delete_expired = in_transaction(delete_expired_keys)


def _name(tenant: str, key: str) -> str:
    """Return the name of a key in the table. Keys of the default tenant keep their text; no key contains a space."""
    return key if tenant == DEFAULT_TENANT else f"{tenant} {hashlib.sha256(key.encode()).hexdigest()}"


def _of_tenant(tenant: str) -> ColumnElement[bool]:
    """Return the condition that a row has a name that `_name` gives to this tenant."""
    if tenant == DEFAULT_TENANT:
        return ~_requests.c.key.contains(" ")
    return _requests.c.key.startswith(f"{tenant} ", autoescape=True)


def _insert(connection: Connection, lease: KeyLease, *, lease_seconds: float) -> bool:
    statement = dialect_insert(connection, _requests).values(_leased(lease, lease_seconds=lease_seconds))
    return connection.execute(statement.on_conflict_do_nothing().returning(_requests.c.key)).first() is not None


def _leased(lease: KeyLease, *, lease_seconds: float) -> dict[str, Any]:
    return {
        "key": lease.key,
        "token": lease.token,
        "lease_until": now(lease_seconds),
        "expires_at": now(OUTCOME_SECONDS),
    }


def _lock(connection: Connection, key: str) -> Row[Any] | None:
    left_seconds = elapsed_seconds(_requests.c.lease_until, now()).label("left_seconds")
    statement = select(_requests, left_seconds, (_requests.c.expires_at < now()).label("expired"))
    return connection.execute(statement.where(_requests.c.key == key).with_for_update()).one_or_none()


def _held_by(lease: KeyLease) -> list[ColumnElement[bool]]:
    return [_requests.c.key == lease.key, _requests.c.token == lease.token]
