"""Submission: uploads of teachers and new jobs, within the quotas of their tenant.

One transaction writes the rows, a line of the audit log and the outcome for the idempotency key. Meanwhile no other
submission of the same tenant is counted.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from dfkd_core.notice import Notice
from jobs.db.database import Transaction
from jobs.ledger import queries
from jobs.ledger.context import LedgerContext
from jobs.ledger.lineage import Origin, checkpoint_of
from jobs.lifecycle import idempotency
from jobs.lifecycle.idempotency import OutcomeRecorder
from jobs.models import ClassEstimate, Job, JobSpec, JobWithPosition, TeacherRef
from jobs.tenancy import audit_log, quotas, teachers
from jobs.tenancy.audit_log import AuditAction, AuditOutcome
from jobs.tenancy.teachers import Lifetime


def put_teacher(
    transaction: Transaction,
    context: LedgerContext,
    ref: TeacherRef,
    *,
    recorder: OutcomeRecorder[tuple[TeacherRef, bool]] | None = None,
) -> tuple[TeacherRef, bool]:
    """Keep a teacher until its tenant deletes it or does not use it for the retention period.

    Returns the teacher with database time, and True if the tenant did not have it before.

    Raises:
        QuotaExceeded: The teacher would exceed a quota of the tenant.
        RequestInProgress: Another request has taken the idempotency key.
    """
    quotas.lock_submissions(transaction.connection, context.caller.tenant, context.limits.default_quotas)
    found = _put(transaction, context, ref, Lifetime.OWN)
    if recorder is not None:
        idempotency.record(transaction, recorder, found, about=ref.id)
    return found


def create_job(  # noqa: PLR0917 - as a method it has four
    transaction: Transaction,
    context: LedgerContext,
    job_id: str,
    spec: JobSpec,
    teacher: TeacherRef | str,
    warnings: Sequence[Notice] = (),
    *,
    traceparent: str | None = None,
    origin: Origin | None = None,
    estimate: Sequence[ClassEstimate] | None = None,
    recorder: OutcomeRecorder[JobWithPosition] | None = None,
) -> Job:
    """Accept a job: write its row, its labels and one event.

    `teacher` is the id of a teacher that the tenant has, or a teacher that was sent with the job. The tenant has the
    latter for as long as its jobs use it. `estimate` is what the job takes on the known classes of workers.

    Raises:
        TeacherNotFound: The tenant has no teacher with this id.
        QuotaExceeded: The job or its teacher would exceed a quota of the tenant.
        RequestInProgress: Another request has taken the idempotency key.
        JobNotFound: The job of the origin does not exist.
        InvalidTransition: The job of the origin has not ended.
        CheckpointExpired: The new job should continue from a checkpoint that the origin does not have.
    """
    connection, caller, defaults = transaction.connection, context.caller, context.limits.default_quotas
    quotas.lock_submissions(connection, caller.tenant, defaults)
    quotas.check_job(connection, caller.tenant, defaults)
    if isinstance(teacher, TeacherRef):
        _put(transaction, context, teacher, Lifetime.JOBS)
    teacher_id = teacher.id if isinstance(teacher, TeacherRef) else teacher
    queries.insert_job(
        transaction,
        job_id,
        spec,
        teacher_id,
        warnings,
        caller=caller,
        traceparent=traceparent,
        origin=origin,
        estimate=estimate,
    )
    action, detail = AuditAction.SUBMITTED, teacher_id
    if origin is not None:
        action, detail = AuditAction.CONTINUED if origin.continues else AuditAction.RETRIED, origin.job_id
    audit_log.append(transaction, caller, action, job_id, detail=detail)
    return idempotency.record_job(transaction, context.tenant, job_id, recorder)


def last_checkpoint(transaction: Transaction, context: LedgerContext, job_id: str) -> str:
    """Return the digest of the last checkpoint of a finished job.

    Raises:
        JobNotFound: The job does not exist.
        InvalidTransition: The job has not ended.
        CheckpointExpired: The job has no checkpoint.
    """
    return checkpoint_of(queries.locked_row(transaction.connection, context.tenant, job_id))


def check_room(
    connection: Connection,
    context: LedgerContext,
    *,
    num_bytes: int,
    submits: bool,
    teacher_id: str | None = None,
) -> None:
    """Check, before a body is read, that the tenant may store at least `num_bytes`, and a job too if it submits one.

    `teacher_id` is the id of the teacher, if it is known. The submission itself checks again.

    Raises:
        QuotaExceeded: A quota of the tenant refuses the teacher or the job.
    """
    tenant, defaults = context.caller.tenant, context.limits.default_quotas
    if submits:
        quotas.check_job(connection, tenant, defaults)
    quotas.check_upload(connection, tenant, defaults, num_bytes=num_bytes, teacher_id=teacher_id)


def _put(
    transaction: Transaction, context: LedgerContext, ref: TeacherRef, lifetime: Lifetime
) -> tuple[TeacherRef, bool]:
    """Record within the quotas that the tenant has a teacher, and write the line of the audit log."""
    caller, defaults = context.caller, context.limits.default_quotas
    quotas.check_upload(transaction.connection, caller.tenant, defaults, num_bytes=ref.bytes, teacher_id=ref.id)
    teacher, is_new = teachers.put(transaction, caller.tenant, ref, lifetime)
    outcome = AuditOutcome.DONE if is_new else AuditOutcome.UNCHANGED
    audit_log.append(transaction, caller, AuditAction.UPLOADED, ref.id, outcome=outcome)
    return teacher, is_new
