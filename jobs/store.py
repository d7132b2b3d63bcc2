"""The store: the ledger of all tenants, as workers and the service itself use it.

Each method is one transaction. Methods may be called from any thread. They block for at most a few seconds, and then
raise LedgerUnavailable. All times are the database's. A caller's methods are in `jobs.tenant_store`, and
`jobs.ledger.leases` has the rules for workers. A method that only calls one function of the ledger is declared with
`on_snapshot` or `in_transaction`, and has the signature and docstring of that function.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import select

from dfkd_core.notice import Notice
from jobs.db import row_security, tables
from jobs.db.database import Database
from jobs.db.schema_versions import Revisions
from jobs.db.transactional import in_transaction, on_snapshot
from jobs.devices import DeviceClass
from jobs.errors import ClaimRaceLost
from jobs.identity import Caller
from jobs.ledger import attempt_end, cancel_pause, leases, queries, workers
from jobs.ledger.leases import Claim, Lease, Limits, Sweep
from jobs.ledger.statistics import ledger_statistics
from jobs.lifecycle import retention
from jobs.metrics import LEASES_EXPIRED, OUTCOMES, STALE_WRITES
from jobs.models import ArtifactRef, BestStudent, JobError, Progress
from jobs.quota_limits import Quotas
from jobs.settings import Settings
from jobs.tenancy import teachers
from jobs.tenancy.api_keys import ApiKeys
from jobs.tenancy.audit_log import AuditLog
from jobs.tenancy.tenants import Tenants
from jobs.tenant_store import TenantStore

log = logging.getLogger(__name__)


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
    limits = Limits(max_attempts=settings.max_attempts, max_crashes=settings.max_crashes)
    return Store(database, limits=limits, defaults=settings.quotas, backoff_seconds=settings.backoff_seconds)


class Store(TenantStore):
    """The ledger of all tenants. `of` gives the part that one caller may see."""

    def __init__(self, database: Database, *, limits: Limits, defaults: Quotas, backoff_seconds: float) -> None:
        super().__init__(database, None, defaults)
        self.api_keys = ApiKeys(self._database)
        self.tenants = Tenants(self._database, defaults)
        self.audit_log = AuditLog(self._database)
        self._limits = limits
        self._backoff_seconds = backoff_seconds

    def of(self, caller: Caller) -> TenantStore:
        """The rows of this caller's tenant, and nothing else."""
        return TenantStore(self._database, caller, self._defaults)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def ping(self) -> None:
        """Return when the database answers and the tables are there; raise LedgerUnavailable otherwise."""
        self._database.read(lambda connection: connection.execute(select(tables.jobs.c.number).limit(1)).first())

    unbound_role = on_snapshot(row_security.unbound_role)
    jobs_with_positions = on_snapshot(queries.jobs_with_positions)

    # What there is
    queue_depth = on_snapshot(queries.count_by_state)
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
    unserved = on_snapshot(workers.unserved)

    # Jobs, from the worker's side

    def claim(
        self, owner: str, lease_seconds: float, threads: int, device_class: DeviceClass = DeviceClass.CPU
    ) -> Claim | None:
        """Claim the first due job that a worker of this class serves, for `lease_seconds`; None if there is none.

        `jobs.ledger.scheduling` defines the order.
        """
        options: dict[str, Any] = {"lease_seconds": lease_seconds, "threads": threads, "device_class": device_class}
        while True:
            with suppress(ClaimRaceLost):
                return self._database.write(lambda t: leases.claim(t, owner, defaults=self._defaults, **options))

    def heartbeat(self, job_id: str, fence: int, lease_seconds: float) -> Lease | None:
        """Renew a lease. None means that another claim has the job: stop the runner now."""
        lease = self._database.write(
            lambda t: leases.heartbeat(t, job_id, fence, lease_seconds=lease_seconds, defaults=self._defaults)
        )
        _counted("heartbeat", held=lease is not None)
        return lease

    def record(
        self,
        job_id: str,
        fence: int,
        *,
        progress: Progress | None = None,
        best: BestStudent | None = None,
        events: Sequence[tuple[str, dict[str, Any]]] = (),
        warnings: Sequence[Notice] = (),
    ) -> bool:
        """Write what a runner reports. False means that another claim has the job. The fraction never falls."""
        held = self._database.write(
            lambda t: leases.record(t, job_id, fence, progress=progress, best=best, events=events, warnings=warnings)
        )
        return _counted("record", held=held)

    def record_checkpoint(self, job_id: str, fence: int, *, step: int, sha256: str) -> bool:
        """Make this the last checkpoint and keep the one before it. False means that another claim has the job."""
        held = self._database.write(lambda t: leases.record_checkpoint(t, job_id, fence, step=step, sha256=sha256))
        return _counted("checkpoint", held=held)

    def succeed(
        self, job_id: str, fence: int, *, artifacts: Sequence[ArtifactRef], best: BestStudent | None = None
    ) -> bool:
        """End a job as succeeded and publish its files, which must be in the artifact store already.

        False means that another claim has the job, or that it is being cancelled.
        """
        published = self._database.write(lambda t: leases.succeed(t, job_id, fence, artifacts=artifacts, best=best))
        _counted("succeed", held=published or self._holds(job_id, fence))
        return published

    def fail(self, job_id: str, fence: int, *, error: JobError) -> bool:
        """End a job as failed, or as cancelled if a cancel was requested. False: another claim has the job."""
        return _counted("fail", held=self._database.write(lambda t: leases.fail(t, job_id, fence, error=error)))

    def cancelled(self, job_id: str, fence: int) -> bool:
        """End a job as cancelled. False means that another claim has the job, or that no cancel was requested."""
        ended = self._database.write(lambda t: leases.cancelled(t, job_id, fence))
        _counted("cancelled", held=ended or self._holds(job_id, fence))
        return ended

    def paused(self, job_id: str, fence: int) -> bool:
        """Pause a job whose runner has stopped. False means that another claim has the job, or that it was resumed."""
        obeyed = self._database.write(lambda t: cancel_pause.paused(t, job_id, fence))
        _counted("paused", held=obeyed or self._holds(job_id, fence))
        return obeyed

    def release(self, job_id: str, fence: int, *, reason: str, charged: bool, delay_seconds: float = 0.0) -> bool:
        """Put a job back into the queue, or pause it if that was requested. False: another claim has the job.

        A charged release is a crash. `max_crashes` of them without a newer checkpoint end the job as `poison`, and
        `max_attempts` attempts end it as `worker-lost`. An uncharged release does not count the attempt, up to
        UNCHARGED_CAP times.
        """
        held = self._database.write(
            lambda t: leases.release(
                t,
                job_id,
                fence,
                reason=reason,
                charged=charged,
                delay_seconds=delay_seconds,
                limits=self._limits,
            )
        )
        return _counted("release", held=held)

    def sweep(
        self,
        *,
        max_attempts: int | None = None,
        max_crashes: int | None = None,
        backoff_seconds: float | None = None,
    ) -> Sweep:
        """Release the jobs of dead workers, and name the queued jobs about which to notify workers.

        Limits that are not given are those of the settings. Any process may call this at any time.
        """
        if not self._database.read(leases.something_to_sweep):
            return Sweep()
        limits = Limits(
            max_attempts=self._limits.max_attempts if max_attempts is None else max_attempts,
            max_crashes=self._limits.max_crashes if max_crashes is None else max_crashes,
        )
        backoff = self._backoff_seconds if backoff_seconds is None else backoff_seconds
        found = self._database.write(
            lambda t: leases.sweep(t, limits=limits, backoff_seconds=backoff, defaults=self._defaults)
        )
        _log_expired(found)
        return found

    def _holds(self, job_id: str, fence: int) -> bool:
        """Whether this claim still owns the job, so that a write was refused for another reason."""
        return self._database.read(lambda connection: attempt_end.is_owner(connection, job_id, fence))


def _counted(kind: str, *, held: bool) -> bool:
    """Return `held`, and count a write that was refused because another claim has the job."""
    if not held:
        STALE_WRITES.labels(kind).inc()
    return held


def _log_expired(found: Sweep) -> None:
    """Count and log every lease that expired."""
    for outcome in OUTCOMES:
        LEASES_EXPIRED.labels(outcome).inc(len(getattr(found, outcome)))
        for job_id in getattr(found, outcome):
            now = "queued again" if outcome == "expired" else outcome
            log.warning("a worker was lost", extra={"job_id": job_id, "attempt": found.attempts[job_id], "now": now})
