"""What comes in: teachers and jobs, within the quotas of their tenant, each with its line in the audit log.

Functions over an open write transaction; within it, no other submission of the same tenant is counted.
"""

from collections.abc import Sequence

from dfkd_core.notice import Notice
from jobs.db.database import Transaction
from jobs.identity import Caller
from jobs.ledger import queries
from jobs.ledger.lineage import Origin
from jobs.models import JobSpec, TeacherRef
from jobs.quota_limits import Quotas
from jobs.tenancy import audit_log, quotas, teachers
from jobs.tenancy.audit_log import AuditAction, AuditOutcome
from jobs.tenancy.teachers import Lifetime


def take_teacher(
    transaction: Transaction, ref: TeacherRef, *, caller: Caller, defaults: Quotas
) -> tuple[TeacherRef, bool]:
    """Keep a teacher for a tenant until it deletes it → what is kept, with database time, and whether it is new.

    QuotaExceeded.
    """
    quotas.lock_submissions(transaction.connection, caller.tenant, defaults)
    return _keep(transaction, ref, Lifetime.OWN, caller, defaults)


def take_job(
    transaction: Transaction,
    job_id: str,
    spec: JobSpec,
    teacher: TeacherRef | str,
    warnings: Sequence[Notice],
    *,
    caller: Caller,
    defaults: Quotas,
    traceparent: str | None,
    origin: Origin | None,
) -> None:
    """Put a job into the queue; QuotaExceeded, and what `queries.insert_job` raises.

    `teacher`: the id of one that is kept, or one that came along: it is kept for as long as jobs
    of its tenant use it, or not at all where the job is refused.
    """
    quotas.lock_submissions(transaction.connection, caller.tenant, defaults)
    quotas.check_job(transaction.connection, caller.tenant, defaults)
    if isinstance(teacher, TeacherRef):
        _keep(transaction, teacher, Lifetime.JOBS, caller, defaults)
    teacher_id = teacher.id if isinstance(teacher, TeacherRef) else teacher
    queries.insert_job(
        transaction, job_id, spec, teacher_id, warnings, caller=caller, traceparent=traceparent, origin=origin
    )
    act = (
        AuditAction.SUBMITTED if origin is None else AuditAction.CONTINUED if origin.continues else AuditAction.RETRIED
    )
    audit_log.append(transaction, caller, act, job_id, detail=teacher_id if origin is None else origin.job_id)


def _keep(
    transaction: Transaction, ref: TeacherRef, lifetime: Lifetime, caller: Caller, defaults: Quotas
) -> tuple[TeacherRef, bool]:
    connection = transaction.connection
    quotas.check_upload(connection, caller.tenant, defaults, num_bytes=ref.bytes, teacher_id=ref.id)
    kept, new = teachers.put(transaction, caller.tenant, ref, lifetime)
    audit_log.append(
        transaction, caller, AuditAction.UPLOADED, ref.id, outcome=AuditOutcome.DONE if new else AuditOutcome.UNCHANGED
    )
    return kept, new
