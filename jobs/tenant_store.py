"""The part of the ledger that one caller may see: its tenant's jobs, teachers and idempotency keys.

Every method reads and changes only rows of one tenant; rows of other tenants count as absent. Each query names the
tenant, and on PostgreSQL each transaction does, too (`jobs.db.row_security`). A method is one transaction. Methods may
be called from any thread. They block for at most a few seconds, and then raise LedgerUnavailable. All times are the
database's. A method that is declared with a function of `jobs.db.transactional` has the signature and docstring of the
function that it calls.
"""

from jobs.db.database import Database
from jobs.db.row_security import ALL_TENANTS
from jobs.db.transactional import in_context_transaction, on_context_snapshot, on_tenant_snapshot
from jobs.ledger import queries
from jobs.ledger.context import LedgerContext
from jobs.lifecycle import actions, deletion, submission
from jobs.lifecycle.idempotency import Keys
from jobs.models import Job, TeacherRef
from jobs.quota_limits import Quota, Quotas
from jobs.tenancy import quotas, teachers
from jobs.tenancy.quotas import Use


class TenantStore:
    """The ledger as one caller sees it. `Store`, whose context has no tenant, sees the rows of all tenants."""

    def __init__(self, database: Database, context: LedgerContext) -> None:
        self._context = context
        self._tenant = context.tenant
        self._database = database.of(ALL_TENANTS if context.tenant is None else context.tenant)
        self.keys = Keys(self._database, context.caller.tenant)

    # Teachers
    put_teacher = in_context_transaction(submission.put_teacher)
    delete_teacher = deletion.as_method(deletion.delete_teacher)

    def get_teacher(self, teacher_id: str) -> TeacherRef:
        """Return one teacher of the caller's tenant.

        Raises:
            TeacherNotFound: The tenant does not have this teacher.
        """
        tenant = self._context.caller.tenant
        return self._database.read(lambda connection: teachers.teacher_with_id(connection, tenant, teacher_id))

    # Jobs
    create = in_context_transaction(submission.create_job)
    last_checkpoint = in_context_transaction(submission.last_checkpoint)
    get = on_tenant_snapshot(queries.job_with_id)
    get_with_position = on_tenant_snapshot(queries.job_with_position)
    list = on_tenant_snapshot(queries.page)
    events = on_tenant_snapshot(queries.events)
    request_cancel = in_context_transaction(actions.request_cancel)
    request_pause = in_context_transaction(actions.request_pause)
    request_resume = in_context_transaction(actions.request_resume)
    note_download = in_context_transaction(actions.note_download)
    delete = deletion.as_method(deletion.delete_job)

    def get_nowait(self, job_id: str) -> Job | None:
        """Return one job, read without waiting for the database; None if the database would make the caller wait.

        Raises:
            JobNotFound: The job does not exist.
        """
        return self._database.read_nowait(lambda connection: queries.job_with_id(connection, self._tenant, job_id))

    # Quotas
    check_room = on_context_snapshot(submission.check_room)

    def quota_limits(self) -> Quotas:
        """Return the limits of the caller's tenant."""
        tenant, defaults = self._context.caller.tenant, self._context.limits.default_quotas
        return self._database.read(lambda connection: quotas.of_tenant(connection, tenant, defaults))

    def quota_usage(self) -> dict[Quota, Use]:
        """Every quota of the caller's tenant with its limit and its use."""
        tenant, defaults = self._context.caller.tenant, self._context.limits.default_quotas
        return self._database.read(lambda connection: quotas.quota_usage(connection, tenant, defaults))
