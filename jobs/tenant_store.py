"""The part of the ledger that one caller may see: its tenant's jobs, teachers and idempotency keys.

Every method reads and changes only rows of one tenant; rows of other tenants count as absent. Each query names the
tenant, and on PostgreSQL each transaction does, too (`jobs.db.row_security`). A method is one transaction. Methods may
be called from any thread. They block for at most a few seconds, and then raise LedgerUnavailable. All times are the
database's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from dfkd_core.notice import Notice
from jobs.db import tables
from jobs.db.database import Database, Transaction
from jobs.db.mapping import event_from_row
from jobs.db.row_security import ALL_TENANTS
from jobs.errors import InvalidTransition
from jobs.ledger import cancel_pause, queries, submissions
from jobs.ledger.context import LedgerContext
from jobs.ledger.lineage import Origin, checkpoint_of
from jobs.lifecycle import deletion, idempotency
from jobs.lifecycle.deletion import DeletedRecord
from jobs.lifecycle.idempotency import Keys, OutcomeRecorder
from jobs.models import (
    CANCELLING,
    Event,
    Job,
    JobPage,
    JobSpec,
    JobState,
    JobWithPosition,
    TeacherRef,
)
from jobs.quota_limits import Quota
from jobs.tenancy import audit_log, quotas, teachers
from jobs.tenancy.audit_log import AuditAction, AuditOutcome
from jobs.tenancy.quotas import Use

CANCELLABLE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED)
PAUSABLE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


class TenantStore:
    """The ledger as one caller sees it. `Store`, whose context has no tenant, sees the rows of all tenants."""

    def __init__(self, database: Database, context: LedgerContext) -> None:
        self._context = context
        self._caller = context.caller
        self._tenant = context.tenant
        self._defaults = context.limits.default_quotas
        self._database = database.of(ALL_TENANTS if context.tenant is None else context.tenant)
        self.keys = Keys(self._database, context.caller.tenant)

    # Teachers

    def put_teacher(
        self, ref: TeacherRef, *, recorder: OutcomeRecorder[tuple[TeacherRef, bool]] | None = None
    ) -> tuple[TeacherRef, bool]:
        """Keep a teacher until it is deleted, or unused for long. QuotaExceeded.

        Return what is kept, with database time, and whether it is new here.
        """

        def work(transaction: Transaction) -> tuple[TeacherRef, bool]:
            kept = submissions.take_teacher(transaction, ref, caller=self._caller, defaults=self._defaults)
            if recorder is not None:
                idempotency.record(transaction, recorder, kept, about=ref.id)
            return kept

        return self._database.write(work)

    def get_teacher(self, teacher_id: str) -> TeacherRef:
        """One teacher; TeacherNotFound."""
        return self._database.read(
            lambda connection: teachers.teacher_with_id(connection, self._caller.tenant, teacher_id)
        )

    def delete_teacher(self, teacher_id: str) -> DeletedRecord:
        """Forget a teacher, and the checkpoints of the jobs that used it. TeacherNotFound; TeacherInUse."""
        return deletion.once(self._database, lambda t: deletion.forget_teacher(t, self._caller, teacher_id))

    # Jobs

    def create(
        self,
        job_id: str,
        spec: JobSpec,
        teacher: TeacherRef | str,
        warnings: Sequence[Notice] = (),
        *,
        traceparent: str | None = None,
        origin: Origin | None = None,
        recorder: OutcomeRecorder[JobWithPosition] | None = None,
    ) -> Job:
        """Accept a job: one row, its labels and one event. TeacherNotFound; QuotaExceeded; RequestInProgress.

        `teacher`: the id of one that is kept, or one that came along: kept for as long as jobs use it.
        With an `origin`: JobNotFound; InvalidTransition where that has not ended; CheckpointExpired.
        """

        def work(transaction: Transaction) -> Job:
            submissions.take_job(
                transaction,
                job_id,
                spec,
                teacher,
                warnings,
                caller=self._caller,
                defaults=self._defaults,
                traceparent=traceparent,
                origin=origin,
            )
            return idempotency.record_job(transaction, self._tenant, job_id, recorder)

        return self._database.write(work)

    def last_checkpoint(self, job_id: str) -> str:
        """Digest of the last checkpoint of a finished job; JobNotFound, InvalidTransition, CheckpointExpired."""
        return self._database.write(lambda t: checkpoint_of(queries.locked_row(t.connection, self._tenant, job_id)))

    def get(self, job_id: str) -> Job:
        """One job; JobNotFound."""
        return self._database.read(lambda connection: queries.job_with_id(connection, self._tenant, job_id))

    def glance(self, job_id: str) -> Job | None:
        """One job, without ever waiting for the database; None where that cannot be. JobNotFound."""
        return self._database.glance(lambda connection: queries.job_with_id(connection, self._tenant, job_id))

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

    def request_cancel(self, job_id: str, *, recorder: OutcomeRecorder[JobWithPosition] | None = None) -> Job:
        """Queued: cancelled at once. Running: its worker is told by the next heartbeat. Cancelled: unchanged.

        JobNotFound; InvalidTransition where the job has succeeded or failed; RequestInProgress.
        """

        def work(transaction: Transaction) -> Job:
            row = queries.locked_row(transaction.connection, self._tenant, job_id)
            if row.state not in CANCELLABLE:
                raise InvalidTransition(JobState(row.state), allowed=CANCELLABLE)
            if row.cancel_requested_at is None:
                cancel_pause.request_cancel(transaction, row)
            return self._recorded(transaction, row, AuditAction.CANCELLED, recorder)

        return self._database.write(work)

    def request_pause(self, job_id: str, *, recorder: OutcomeRecorder[JobWithPosition] | None = None) -> Job:
        """Queued: paused at once. Running: its worker is told by the next heartbeat. Paused: unchanged.

        JobNotFound; InvalidTransition where the job is terminal or being cancelled; RequestInProgress.
        """
        return self._change_pause(job_id, cancel_pause.request_pause, AuditAction.PAUSED, recorder)

    def request_resume(self, job_id: str, *, recorder: OutcomeRecorder[JobWithPosition] | None = None) -> Job:
        """Paused: queued again. Pausing: the pause is off. Queued or running: unchanged. Raises as `request_pause`."""
        return self._change_pause(job_id, cancel_pause.request_resume, AuditAction.RESUMED, recorder)

    def _change_pause(
        self,
        job_id: str,
        change: Callable[[Transaction, Row[Any]], None],
        act: AuditAction,
        recorder: OutcomeRecorder[JobWithPosition] | None,
    ) -> Job:
        def work(transaction: Transaction) -> Job:
            row = queries.locked_row(transaction.connection, self._tenant, job_id)
            if row.state not in PAUSABLE:
                raise InvalidTransition(JobState(row.state), allowed=PAUSABLE)
            if row.cancel_requested_at is not None:
                raise InvalidTransition(CANCELLING, allowed=PAUSABLE)
            change(transaction, row)
            return self._recorded(transaction, row, act, recorder)

        return self._database.write(work)

    def _recorded(
        self,
        transaction: Transaction,
        before: Row[Any],
        act: AuditAction,
        recorder: OutcomeRecorder[JobWithPosition] | None,
    ) -> Job:
        """The job as it is now, after the recorder has it and the audit log has a line."""
        job = idempotency.record_job(transaction, self._tenant, before.id, recorder)
        outcome = AuditOutcome.UNCHANGED if job.revision == before.revision else AuditOutcome.DONE
        audit_log.append(transaction, self._caller, act, job.id, outcome=outcome)
        return job

    def delete(self, job_id: str) -> DeletedRecord:
        """Forget a terminal job with its history, and with its teacher where that came along with it and no other job
        uses it. JobNotFound; InvalidTransition where the job is not terminal.
        """
        return deletion.once(self._database, lambda t: deletion.forget_job(t, self._caller, self._tenant, job_id))

    def get_with_position(self, job_id: str) -> JobWithPosition:
        """One job with its place in the queue; JobNotFound."""
        return self._database.read(lambda connection: queries.job_with_position(connection, self._tenant, job_id))

    def note_download(self, job_id: str, name: str) -> None:
        """Write down that a file of a job is handed out."""
        told: dict[str, Any] = {"detail": name, "outcome": AuditOutcome.BEGUN}
        self._database.write(lambda t: audit_log.append(t, self._caller, AuditAction.DOWNLOADED, job_id, **told))

    # Quotas

    def quota_usage(self) -> dict[Quota, Use]:
        """Every quota of the tenant, and what it has used of it."""
        tenant = self._caller.tenant
        return self._database.read(lambda connection: quotas.quota_usage(connection, tenant, self._defaults))

    def check_room(self, *, num_bytes: int, submits: bool, teacher_id: str | None = None) -> None:
        """QuotaExceeded where a teacher of at least `num_bytes` would be refused, or a job: before anything is read.

        `teacher_id`: that of the teacher, where it is known. What is not refused here may still be refused when it
        comes to the ledger.
        """
        tenant = self._caller.tenant

        def work(connection: Connection) -> None:
            if submits:
                quotas.check_job(connection, tenant, self._defaults)
            quotas.check_upload(connection, tenant, self._defaults, num_bytes=num_bytes, teacher_id=teacher_id)

        self._database.read(work)
