"""Actions of callers on their jobs: cancel, pause, resume and download.

One transaction changes the job and writes a line of the audit log and the outcome for the idempotency key.
"""

from typing import Any

from sqlalchemy import Row

from jobs.db.database import Transaction
from jobs.errors import InvalidTransition
from jobs.ledger import cancel_pause, queries
from jobs.ledger.context import LedgerContext
from jobs.lifecycle import idempotency
from jobs.lifecycle.idempotency import OutcomeRecorder
from jobs.models import CANCELLING, Job, JobState, JobWithPosition
from jobs.tenancy import audit_log
from jobs.tenancy.audit_log import AuditAction, AuditOutcome

CANCELLABLE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED)
PAUSABLE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)

Recorder = OutcomeRecorder[JobWithPosition] | None


def request_cancel(transaction: Transaction, context: LedgerContext, job_id: str, *, recorder: Recorder = None) -> Job:
    """Cancel a waiting job at once. The worker of a running job learns of the request with its next heartbeat.

    A cancelled job stays as it is.

    Raises:
        JobNotFound: The job does not exist.
        InvalidTransition: The job has succeeded or failed.
        RequestInProgress: Another request has taken the idempotency key.
    """
    row = queries.locked_row(transaction.connection, context.tenant, job_id)
    if row.state not in CANCELLABLE:
        raise InvalidTransition(JobState(row.state), allowed=CANCELLABLE)
    if row.cancel_requested_at is None:
        cancel_pause.request_cancel(transaction, row)
    return _recorded(transaction, context, row, AuditAction.CANCELLED, recorder)


def request_pause(transaction: Transaction, context: LedgerContext, job_id: str, *, recorder: Recorder = None) -> Job:
    """Pause a queued job at once. The worker of a running job learns of the request with its next heartbeat.

    A paused job stays as it is.

    Raises:
        JobNotFound: The job does not exist.
        InvalidTransition: The job has ended or is being cancelled.
        RequestInProgress: Another request has taken the idempotency key.
    """
    row = _pausable_row(transaction, context, job_id)
    cancel_pause.request_pause(transaction, row)
    return _recorded(transaction, context, row, AuditAction.PAUSED, recorder)


def request_resume(transaction: Transaction, context: LedgerContext, job_id: str, *, recorder: Recorder = None) -> Job:
    """Queue a paused job again, or withdraw the pause of a running one. Any other queued or running job stays as it is.

    Raises:
        JobNotFound: The job does not exist.
        InvalidTransition: The job has ended or is being cancelled.
        RequestInProgress: Another request has taken the idempotency key.
    """
    row = _pausable_row(transaction, context, job_id)
    cancel_pause.request_resume(transaction, row)
    return _recorded(transaction, context, row, AuditAction.RESUMED, recorder)


def note_download(transaction: Transaction, context: LedgerContext, job_id: str, name: str) -> None:
    """Write into the audit log that the download of a job's file begins."""
    audit_log.append(
        transaction, context.caller, AuditAction.DOWNLOADED, job_id, detail=name, outcome=AuditOutcome.BEGUN
    )


def _pausable_row(transaction: Transaction, context: LedgerContext, job_id: str) -> Row[Any]:
    """Return the locked row of a job that can be paused or resumed."""
    row = queries.locked_row(transaction.connection, context.tenant, job_id)
    if row.state not in PAUSABLE:
        raise InvalidTransition(JobState(row.state), allowed=PAUSABLE)
    if row.cancel_requested_at is not None:
        raise InvalidTransition(CANCELLING, allowed=PAUSABLE)
    return row


def _recorded(
    transaction: Transaction, context: LedgerContext, before: Row[Any], action: AuditAction, recorder: Recorder
) -> Job:
    """Return the job as it is now, after the outcome and the line of the audit log were written."""
    job = idempotency.record_job(transaction, context.tenant, before.id, recorder)
    outcome = AuditOutcome.UNCHANGED if job.revision == before.revision else AuditOutcome.DONE
    audit_log.append(transaction, context.caller, action, job.id, outcome=outcome)
    return job
