"""What a caller has in the ledger: jobs with their history and files, teachers, answers kept under its keys.

Every question and every change is about the jobs and teachers of one tenant; what another has is as if it were not
there. A method is one transaction. Methods may be called from any thread; they block for at most a few seconds and then
raise LedgerUnavailable. Times are the database's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from jobs import queries, requests, tables, teachers, wishes
from jobs.callers import EVERYBODY, Caller
from jobs.database import Database, Transaction
from jobs.errors import InvalidTransition, JobNotFound
from jobs.origins import Origin, checkpoint_of
from jobs.requests import Keys, Receipt, Standing
from jobs.rows import event_from_row
from jobs.schemas import (
    CANCELLING,
    TERMINAL,
    Event,
    Job,
    JobPage,
    JobSpec,
    JobState,
    JobWarning,
    TeacherRef,
)

CANCELLABLE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED)
PAUSABLE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


class Belongings:
    """The ledger as one caller sees it; with None, all of it, and what is new is the default tenant's."""

    def __init__(self, database: Database, caller: Caller | None) -> None:
        self._database = database
        self._caller = caller or EVERYBODY
        self._tenant = None if caller is None else caller.tenant
        self.keys = Keys(database, self._caller.tenant)

    # Teachers

    def put_teacher(
        self, ref: TeacherRef, *, receipt: Receipt[tuple[TeacherRef, bool]] | None = None
    ) -> tuple[TeacherRef, bool]:
        """Keep a teacher once. Return what is kept, with database time, and whether it is new to this tenant."""

        def work(transaction: Transaction) -> tuple[TeacherRef, bool]:
            kept = teachers.put(transaction, self._caller.tenant, ref)
            if receipt is not None:
                requests.settle(transaction, receipt, kept)
            return kept

        return self._database.write(work)

    def get_teacher(self, teacher_id: str) -> TeacherRef:
        """One teacher; TeacherNotFound."""
        return self._database.read(
            lambda connection: teachers.teacher_with_id(connection, self._caller.tenant, teacher_id)
        )

    # Jobs

    def create(
        self,
        job_id: str,
        spec: JobSpec,
        teacher_id: str,
        warnings: Sequence[JobWarning] = (),
        *,
        traceparent: str | None = None,
        origin: Origin | None = None,
        receipt: Receipt[Standing] | None = None,
    ) -> Job:
        """Accept a job: one row, its labels and one event. TeacherNotFound; RequestInProgress.

        With an `origin`: JobNotFound; InvalidTransition where that has not ended; CheckpointExpired.
        """

        def work(transaction: Transaction) -> Job:
            queries.insert_job(
                transaction,
                job_id,
                spec,
                teacher_id,
                warnings,
                caller=self._caller,
                traceparent=traceparent,
                origin=origin,
            )
            return requests.told(transaction, self._tenant, job_id, receipt)

        return self._database.write(work)

    def last_checkpoint(self, job_id: str) -> str:
        """Digest of the last checkpoint of a finished job; JobNotFound, InvalidTransition, CheckpointExpired."""
        return self._database.write(lambda t: checkpoint_of(queries.locked_row(t.connection, self._tenant, job_id)))

    def get(self, job_id: str) -> Job:
        """One job; JobNotFound."""
        return self._database.read(lambda connection: queries.job_with_id(connection, self._tenant, job_id))

    def list(
        self,
        limit: int,
        cursor: str | None = None,
        states: Sequence[JobState] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> JobPage:
        """Newest first. Jobs that arrive between two pages neither shift nor repeat anything. BadCursor."""
        return self._database.read(
            lambda connection: queries.page(
                connection, self._tenant, limit=limit, cursor=cursor, states=states, labels=labels
            )
        )

    def events(self, job_id: str, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """History of a job after `after`, oldest first; JobNotFound."""
        table = tables.events

        def work(connection: Connection) -> Sequence[Event]:
            number = queries.number_of(connection, self._tenant, job_id)
            lines = select(table).where(table.c.job_number == number, table.c.seq > after).order_by(table.c.seq)
            return [event_from_row(row, job_id) for row in connection.execute(lines.limit(limit))]

        return self._database.read(work)

    def request_cancel(self, job_id: str, *, receipt: Receipt[Standing] | None = None) -> Job:
        """Queued: cancelled at once. Running: its worker is told by the next heartbeat. Cancelled: unchanged.

        JobNotFound; InvalidTransition where the job has succeeded or failed; RequestInProgress.
        """

        def work(transaction: Transaction) -> Job:
            row = queries.locked_row(transaction.connection, self._tenant, job_id)
            if row.state not in CANCELLABLE:
                raise InvalidTransition(JobState(row.state), allowed=CANCELLABLE)
            if row.cancel_requested_at is None:
                wishes.request_cancel(transaction, row)
            return requests.told(transaction, self._tenant, job_id, receipt)

        return self._database.write(work)

    def request_pause(self, job_id: str, *, receipt: Receipt[Standing] | None = None) -> Job:
        """Queued: paused at once. Running: its worker is told by the next heartbeat. Paused: unchanged.

        JobNotFound; InvalidTransition where the job is terminal or being cancelled; RequestInProgress.
        """
        return self._change_pause(job_id, wishes.request_pause, receipt)

    def request_resume(self, job_id: str, *, receipt: Receipt[Standing] | None = None) -> Job:
        """Paused: queued again. Pausing: the pause is off. Queued or running: unchanged. Raises as `request_pause`."""
        return self._change_pause(job_id, wishes.request_resume, receipt)

    def _change_pause(
        self, job_id: str, change: Callable[[Transaction, Row[Any]], None], receipt: Receipt[Standing] | None
    ) -> Job:
        def work(transaction: Transaction) -> Job:
            row = queries.locked_row(transaction.connection, self._tenant, job_id)
            if row.state not in PAUSABLE:
                raise InvalidTransition(JobState(row.state), allowed=PAUSABLE)
            if row.cancel_requested_at is not None:
                raise InvalidTransition(CANCELLING, allowed=PAUSABLE)
            change(transaction, row)
            return requests.told(transaction, self._tenant, job_id, receipt)

        return self._database.write(work)

    def delete(self, job_id: str) -> Sequence[str]:
        """Forget a terminal job, with its history. Return the digests that nothing refers to any more.

        JobNotFound; InvalidTransition where the job is not terminal.
        """
        forgotten: Sequence[str] | None = None  # what a first try found, should the reply to its commit be lost

        def work(transaction: Transaction) -> Sequence[str]:
            nonlocal forgotten
            try:
                row = queries.locked_row(transaction.connection, self._tenant, job_id)
            except JobNotFound:
                if forgotten is None:
                    raise
                return forgotten
            if row.state not in TERMINAL:
                raise InvalidTransition(JobState(row.state), allowed=TERMINAL)
            forgotten = queries.forget(transaction.connection, row)
            return forgotten

        return self._database.write(work)

    def queue_position(self, job_id: str) -> int | None:
        """1 for the job that is claimed next; None unless it is queued; JobNotFound."""
        return self._database.read(lambda connection: queries.position(connection, self._tenant, job_id))
