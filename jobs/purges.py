"""Purges: a finished job, or a teacher, is deleted with all that belongs to it, and a receipt says what that was.

Rows go first, in one transaction; then the files that no row refers to any more. A file that cannot be removed at
once has no row left: the janitor removes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, func, select, update

from jobs import queries, requests, tables, teachers
from jobs.artifacts import ArtifactStore
from jobs.clock import now
from jobs.database import Database, Transaction
from jobs.errors import (
    ArtifactNotFound,
    InvalidTransition,
    JobNotFound,
    LedgerUnavailable,
    TeacherInUse,
    TeacherNotFound,
)
from jobs.schemas import TERMINAL, JobState, Kept, PurgedFile, PurgeReceipt
from jobs.teachers import Lifetime

TEACHER, CHECKPOINT = "teacher", "checkpoint"
OTHERS_USE_IT = "other jobs use it"
ON_ITS_OWN = "it was uploaded by itself, and is deleted by itself"
SAME_BYTES = "a teacher or another job has the same bytes"
JOBS_TELL_OF_IT = "finished jobs tell of it: its digest, size and format, until they are deleted"
LATER = "the store could not remove it now; no row refers to it, so the janitor will"

_jobs, _teachers, _artifacts = tables.jobs, tables.teachers, tables.artifacts


@dataclass(slots=True)
class Forgotten:
    """What one transaction deleted."""

    kind: Literal["job", "teacher"]
    id: str
    deleted_at: datetime
    rows: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)  # digests to which nothing refers now, and what they were
    kept: list[Kept] = field(default_factory=list)

    def count(self, table: str, rows: int) -> None:
        """Note rows that are gone."""
        if rows:
            self.rows[table] = self.rows.get(table, 0) + rows

    def let_go(self, connection: Connection, files: dict[str, list[str]]) -> None:
        """Note files that the rows spoke of, by whether another row does."""
        for sha256, was in sorted(files.items()):
            if queries.is_referenced(connection, sha256):
                self.kept.append(Kept(sha256=sha256, was=was, because=SAME_BYTES))
            else:
                self.files[sha256] = was


def forget_job(transaction: Transaction, job_id: str) -> Forgotten:
    """Delete a terminal job with all that hangs on it; JobNotFound, InvalidTransition."""
    connection = transaction.connection
    row = queries.locked_row(connection, job_id)
    if row.state not in TERMINAL:
        raise InvalidTransition(JobState(row.state), allowed=TERMINAL)
    forgotten = Forgotten("job", job_id, _time(connection))
    files = _files(connection, row)
    forgotten.count("requests", requests.forget_about(transaction, [job_id]))
    for table in (_artifacts, tables.labels, tables.events):
        gone = connection.execute(delete(table).where(table.c.job_number == row.number)).rowcount
        forgotten.count(table.name, gone)
    forgotten.count("jobs", connection.execute(delete(_jobs).where(_jobs.c.number == row.number)).rowcount)
    _forget_teacher_of(transaction, row.teacher_id, forgotten, files)
    forgotten.let_go(connection, files)
    return forgotten


def forget_teacher(transaction: Transaction, teacher_id: str) -> Forgotten:
    """Delete a teacher, and the checkpoints of the finished jobs that used it: without it they are of no use.

    The jobs stay, with their students. TeacherNotFound; TeacherInUse.
    """
    connection = transaction.connection
    teachers.locked_row(connection, teacher_id)
    used = connection.execute(select(_jobs).where(_jobs.c.teacher_id == teacher_id)).all()
    live = sum(row.state not in TERMINAL for row in used)
    if live:
        raise TeacherInUse(live)
    forgotten = Forgotten("teacher", teacher_id, _time(connection))
    files: dict[str, list[str]] = {teacher_id: [TEACHER]}
    for sha256 in _checkpoints(used):
        files.setdefault(sha256, []).append(CHECKPOINT)
    nothing = {"checkpoint_sha256": None, "previous_checkpoint_sha256": None}
    connection.execute(update(_jobs).where(_jobs.c.teacher_id == teacher_id).values(nothing))
    answers = requests.forget_about(transaction, [teacher_id, *(row.id for row in used)])
    forgotten.count("requests", answers)
    if used:
        emptied = {"lifetime": Lifetime.DELETED, "inspection": "{}"}
        connection.execute(update(_teachers).where(_teachers.c.id == teacher_id).values(emptied))
    else:
        connection.execute(delete(_teachers).where(_teachers.c.id == teacher_id))
    forgotten.count("teachers", 1)
    forgotten.let_go(connection, files)
    return forgotten


def once(database: Database, forget: Callable[[Transaction], Forgotten]) -> Forgotten:
    """Forget in one transaction; where the reply to its commit was lost, that is what the first try found."""
    first: Forgotten | None = None

    def work(transaction: Transaction) -> Forgotten:
        nonlocal first
        try:
            first = forget(transaction)
        except (JobNotFound, TeacherNotFound):
            if first is None:
                raise
        return first

    return database.write(work)


def removed(forgotten: Forgotten, artifacts: ArtifactStore, referenced: Callable[[str], bool]) -> PurgeReceipt:
    """Remove the files of what was forgotten → the receipt."""
    files, kept = [], list(forgotten.kept)
    for sha256, was in forgotten.files.items():
        try:
            size = artifacts.size(sha256)
            gone = bool(artifacts.remove_unreferenced([sha256], referenced))
            because = SAME_BYTES if not gone and referenced(sha256) else LATER
        except ArtifactNotFound:  # lost before: there is nothing to remove
            continue
        except LedgerUnavailable:
            gone, because = False, LATER
        if gone:
            files.append(PurgedFile(sha256=sha256, bytes=size, was=was))
        else:
            kept.append(Kept(sha256=sha256, was=was, because=because))
    return PurgeReceipt(
        kind=forgotten.kind,
        id=forgotten.id,
        deleted_at=forgotten.deleted_at,
        rows=forgotten.rows,
        files=files,
        kept=kept,
    )


def _forget_teacher_of(
    transaction: Transaction, teacher_id: str, forgotten: Forgotten, files: dict[str, list[str]]
) -> None:
    """A teacher that came along with jobs goes with the last of them."""
    connection = transaction.connection
    row = connection.execute(select(_teachers).where(_teachers.c.id == teacher_id).with_for_update()).one()
    others = connection.execute(select(func.count()).where(_jobs.c.teacher_id == teacher_id)).scalar_one()
    if row.lifetime == Lifetime.OWN or others:
        if row.lifetime != Lifetime.DELETED:
            because = ON_ITS_OWN if row.lifetime == Lifetime.OWN else OTHERS_USE_IT
            forgotten.kept.append(Kept(sha256=teacher_id, was=[TEACHER], because=because))
        return
    forgotten.count("requests", requests.forget_about(transaction, [teacher_id]))
    forgotten.count("teachers", connection.execute(delete(_teachers).where(_teachers.c.id == teacher_id)).rowcount)
    files.setdefault(teacher_id, []).append(TEACHER)


def _files(connection: Connection, row: Row[Any]) -> dict[str, list[str]]:
    """What the row of a job refers to, by digest."""
    found: dict[str, list[str]] = {}
    published = select(_artifacts).where(_artifacts.c.job_number == row.number).order_by(_artifacts.c.name)
    for artifact in connection.execute(published):
        found.setdefault(artifact.sha256, []).append(artifact.name)
    for sha256 in _checkpoints([row]):
        found.setdefault(sha256, []).append(CHECKPOINT)
    return found


def _checkpoints(rows: Sequence[Row[Any]]) -> list[str]:
    kept = {row.checkpoint_sha256 for row in rows} | {row.previous_checkpoint_sha256 for row in rows}
    return sorted(sha256 for sha256 in kept if sha256 is not None)


def _time(connection: Connection) -> datetime:
    return connection.execute(select(now())).scalar_one()
