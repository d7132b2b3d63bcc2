"""The store: the ledger of all tenants, as workers and the service itself use it.

Each method is one transaction. Methods may be called from any thread. They block for at most a few seconds, and then
raise LedgerUnavailable. All times are the database's. A caller's methods are in `jobs.tenant_store`, and
`jobs.ledger.leases` has the rules for workers. A method that only calls one function of the ledger is declared with a
function of `jobs.db.transactional`, and has the signature and docstring of the function that it calls.
"""

from dataclasses import replace

from sqlalchemy import select

from jobs.db import row_security, tables
from jobs.db.database import Database
from jobs.db.schema_versions import Revisions
from jobs.db.transactional import in_context_transaction, in_transaction, on_snapshot, repeated_after
from jobs.errors import ClaimRaceLost
from jobs.identity import Caller
from jobs.ledger import leases, queries, workers
from jobs.ledger.context import LedgerContext, LedgerLimits
from jobs.ledger.statistics import ledger_statistics
from jobs.ledger.sweep import Sweep, sweep
from jobs.lifecycle import retention
from jobs.settings import Settings
from jobs.tenancy import teachers
from jobs.tenancy.api_keys import ApiKeys
from jobs.tenancy.audit_log import AuditLog
from jobs.tenancy.tenants import Tenants
from jobs.tenant_store import TenantStore


def open_store(settings: Settings) -> "Store":
    """Open the ledger of these settings, and create or upgrade its tables. The caller closes it.

    Raises:
        SchemaRefused: The tables are of a version that this one cannot work with.
        LedgerUnavailable: The database does not answer.
    """
    database = Database(settings.resolved_database_url)
    try:
        database.upgrade(Revisions())
    except BaseException:
        database.close()
        raise
    limits = LedgerLimits(settings.quotas, settings.max_attempts, settings.max_crashes, settings.backoff_seconds)
    return Store(database, LedgerContext(limits))


class Store(TenantStore):
    """The ledger of all tenants. `of` gives the part that one caller may see."""

    def __init__(self, database: Database, context: LedgerContext) -> None:
        super().__init__(database, context)
        self.api_keys = ApiKeys(self._database)
        self.tenants = Tenants(self._database, context.limits.default_quotas)
        self.audit_log = AuditLog(self._database)

    def of(self, caller: Caller) -> TenantStore:
        """Return the rows of this caller's tenant, and nothing else."""
        return TenantStore(self._database, replace(self._context, caller=caller, tenant=caller.tenant))

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def ping(self) -> None:
        """Return when the database answers and the tables are there; raise LedgerUnavailable otherwise."""
        self._database.read(lambda connection: connection.execute(select(tables.jobs.c.number).limit(1)).first())

    unbound_role = on_snapshot(row_security.unbound_role)
    jobs_with_positions = on_snapshot(queries.jobs_with_positions)

    # What there is
    statistics = on_snapshot(ledger_statistics)
    referenced = on_snapshot(queries.is_referenced)
    references = on_snapshot(retention.references)

    # Retention
    expirable = on_snapshot(retention.expirable)
    expire = in_transaction(retention.expire)
    unused_teachers = on_snapshot(retention.unused_teachers)
    expire_teacher = in_transaction(retention.expire_teacher)
    adopt_teachers = in_transaction(teachers.adopt)
    keep_depth = in_transaction(teachers.keep_depth)

    # Workers
    worker_seen = in_transaction(workers.seen)
    worker_gone = in_transaction(workers.gone)
    live_workers = on_snapshot(workers.living)
    worker_classes = on_snapshot(workers.classes)
    unserved = on_snapshot(workers.unserved)

    # Jobs, from the worker's side
    claim = repeated_after(ClaimRaceLost, in_context_transaction(leases.claim))
    heartbeat = in_context_transaction(leases.heartbeat)
    record = in_transaction(leases.record)
    record_checkpoint = in_transaction(leases.record_checkpoint)
    succeed = in_transaction(leases.succeed)
    fail = in_transaction(leases.fail)
    cancelled = in_transaction(leases.cancelled)
    paused = in_transaction(leases.paused)
    release = in_context_transaction(leases.release)

    def sweep(self) -> Sweep:
        """Do what `jobs.ledger.sweep.sweep` says."""
        return sweep(self._database, self._context)
