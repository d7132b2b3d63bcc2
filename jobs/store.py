"""The store: the whole ledger, everybody's belongings and what service and workers do with them, one method each.

A method is one transaction. Methods may be called from any thread; they block for at most a few seconds and then
raise LedgerUnavailable. Times are the database's. What a caller may do is in `belongings`, what a worker may do in
`claims`.
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import select

from dfkd_core.notice import Notice
from jobs.db import row_security, tables
from jobs.db.database import Database
from jobs.db.schema_versions import Revisions
from jobs.devices import DeviceClass
from jobs.errors import ClaimRaceLost
from jobs.identity import Caller
from jobs.ledger import attempt_end, cancel_pause, leases, queries, workers
from jobs.ledger.leases import Claim, Lease, Limits, Sweep
from jobs.ledger.queries import Wanted
from jobs.ledger.statistics import LedgerStatistics, ledger_statistics
from jobs.lifecycle import retention
from jobs.lifecycle.retention import ExpiredJob, UnusedTeacher
from jobs.metrics import LEASES_EXPIRED, OUTCOMES, STALE_WRITES
from jobs.models import ArtifactRef, BestStudent, JobError, JobState, JobWithPosition, Progress, Worker
from jobs.quota_limits import Quotas
from jobs.settings import Settings
from jobs.tenancy import teachers
from jobs.tenancy.api_keys import ApiKeys
from jobs.tenancy.audit_log import AuditLog
from jobs.tenancy.tenants import Tenants
from jobs.tenant_store import TenantStore

log = logging.getLogger(__name__)


def open_store(settings: Settings) -> "Store":
    """The ledger of these settings, its tables made or brought up to date. Close it when done. SchemaRefused."""
    database = Database(settings.resolved_database_url)
    try:
        database.upgrade(Revisions())
    except BaseException:
        database.close()
        raise
    limits = Limits(max_attempts=settings.max_attempts, max_crashes=settings.max_crashes)
    return Store(database, limits=limits, defaults=settings.quotas, backoff_seconds=settings.backoff_seconds)


class Store(TenantStore):
    """The ledger, whosever jobs these are. For a caller: `of`."""

    def __init__(self, database: Database, *, limits: Limits, defaults: Quotas, backoff_seconds: float) -> None:
        super().__init__(database, None, defaults)
        self.api_keys = ApiKeys(self._database)
        self.tenants = Tenants(self._database, defaults)
        self.audit_log = AuditLog(self._database)
        self._limits = limits
        self._backoff_seconds = backoff_seconds

    def of(self, caller: Caller) -> TenantStore:
        """What this caller's tenant has, and nothing else."""
        return TenantStore(self._database, caller, self._defaults)

    def close(self) -> None:
        """Give all connections back."""
        self._database.close()

    def ping(self) -> None:
        """Return when the database answers and the tables are there; raise LedgerUnavailable otherwise."""
        self._database.read(lambda connection: connection.execute(select(tables.jobs.c.number).limit(1)).first())

    def unbound_role(self) -> str | None:
        """The PostgreSQL role of this ledger where row-level security does not bind it."""
        return self._database.read(row_security.unbound_role)

    # Jobs

    def jobs_with_positions(self, wanted: Collection[Wanted]) -> dict[Wanted, JobWithPosition]:
        """Jobs by tenant (None: whosever) and id, with their places in the queue; what is not there is left out.

        All in one transaction, one query a tenant.
        """
        return self._database.read(lambda connection: queries.jobs_with_positions(connection, wanted))

    # Teachers

    def keep_depth(self, job_id: str, found: dict[str, Any]) -> None:
        """Keep with a job's teacher what running it showed; nothing happens where either is gone."""
        self._database.write(lambda transaction: teachers.keep_depth(transaction.connection, job_id, found))

    # What there is

    def queue_depth(self) -> dict[JobState, int]:
        """How many jobs there are in each state, also where there is none."""
        return self._database.read(queries.count_by_state)

    def statistics(self, *, worker_seconds: float) -> LedgerStatistics:
        """LedgerStatistics of the whole deployment; a worker that was silent for `worker_seconds` is not counted."""
        return self._database.read(lambda connection: ledger_statistics(connection, worker_seconds=worker_seconds))

    def referenced(self, sha256: str) -> bool:
        """Whether a teacher, a published file or a checkpoint is kept under this digest."""
        return self._database.read(lambda connection: queries.is_referenced(connection, None, sha256))

    def references(self) -> set[str]:
        """Every digest for which that is so."""
        return self._database.read(retention.references)

    # Retention

    def expirable(self, retention_seconds: float) -> Sequence[ExpiredJob]:
        """Finished jobs that refer to files for longer than they should; some of them, where there are many."""
        return self._database.read(lambda connection: retention.expirable(connection, retention_seconds))

    def adopt_teachers(self) -> int:
        """Give the default tenant what a service without tenants has put in meanwhile; how many teachers."""
        return self._database.write(teachers.adopt)

    def expire(self, job_id: str, retention_seconds: float) -> None:
        """Have a finished job let go of its files; what is not over yet stays. JobNotFound."""
        self._database.write(lambda t: retention.expire(t, job_id, retention_seconds))

    def unused_teachers(self, retention_seconds: float) -> Sequence[UnusedTeacher]:
        """Teachers that their tenants have not used for so long; some of them, where there are many."""
        return self._database.read(lambda connection: retention.unused_teachers(connection, retention_seconds))

    def expire_teacher(self, unused: UnusedTeacher, retention_seconds: float) -> bool:
        """Forget a teacher as if its tenant had deleted it; False where that uses it again, or has it no longer."""
        return self._database.write(lambda t: retention.expire_teacher(t, unused, retention_seconds))

    # Jobs, from the worker's side

    def claim(
        self, owner: str, lease_seconds: float, threads: int, device_class: DeviceClass = DeviceClass.CPU
    ) -> Claim | None:
        """Take the first job in line that is due and that a worker of this class serves, for `lease_seconds`.

        None when there is none. The line: `jobs.ledger.scheduling`.
        """
        told: dict[str, Any] = {"lease_seconds": lease_seconds, "threads": threads, "device_class": device_class}
        while True:
            with suppress(ClaimRaceLost):
                return self._database.write(lambda t: leases.claim(t, owner, defaults=self._defaults, **told))

    def heartbeat(self, job_id: str, fence: int, lease_seconds: float) -> Lease | None:
        """Renew a lease; None means fenced out: stop the runner now."""
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
        """Write what a runner reports; False means fenced out. The fraction never falls."""
        held = self._database.write(
            lambda t: leases.record(
                t, job_id, fence, progress=progress, best=best, occurrences=events, warnings=warnings
            )
        )
        return _counted("record", held=held)

    def record_checkpoint(self, job_id: str, fence: int, *, step: int, sha256: str) -> bool:
        """Resume from this checkpoint from now on, keep the one before; False means fenced out."""
        held = self._database.write(lambda t: leases.record_checkpoint(t, job_id, fence, step=step, sha256=sha256))
        return _counted("checkpoint", held=held)

    def succeed(
        self, job_id: str, fence: int, *, artifacts: Sequence[ArtifactRef], best: BestStudent | None = None
    ) -> bool:
        """Publish files that are in the artifact store already; False when fenced out or cancelled meanwhile."""
        published = self._database.write(lambda t: leases.succeed(t, job_id, fence, artifacts=artifacts, best=best))
        _counted("succeed", held=published or self._holds(job_id, fence))
        return published

    def fail(self, job_id: str, fence: int, *, error: JobError) -> bool:
        """End a job for good (as cancelled where a cancel is under way); False means fenced out."""
        return _counted("fail", held=self._database.write(lambda t: leases.fail(t, job_id, fence, error=error)))

    def cancelled(self, job_id: str, fence: int) -> bool:
        """The runner has stopped as asked; False means fenced out, or that nobody asked."""
        ended = self._database.write(lambda t: leases.cancelled(t, job_id, fence))
        _counted("cancelled", held=ended or self._holds(job_id, fence))
        return ended

    def paused(self, job_id: str, fence: int) -> bool:
        """The runner has stopped as asked; False means fenced out, or that the job was resumed meanwhile."""
        obeyed = self._database.write(lambda t: cancel_pause.paused(t, job_id, fence))
        _counted("paused", held=obeyed or self._holds(job_id, fence))
        return obeyed

    def release(self, job_id: str, fence: int, *, reason: str, charged: bool, delay_seconds: float = 0.0) -> bool:
        """Back to the queue, or paused where that was asked; False means fenced out.

        A charged release is a crash: enough of them without a newer checkpoint end the job as `poison`, enough
        attempts as `worker-lost`. An uncharged one gives the attempt back, up to UNCHARGED_CAP times.
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
        """Take back what dead workers hold, and say for which queued jobs to ring. What is absent is as in Settings.

        Idempotent: any process may call this at any time.
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
        _tell(found)
        return found

    def _holds(self, job_id: str, fence: int) -> bool:
        """Whether a refused write was refused for another reason than a lost job."""
        return self._database.read(lambda connection: attempt_end.holds(connection, job_id, fence))

    # Workers

    def worker_seen(self, worker_id: str, *, host: str, slots: int, device: str) -> None:
        """A worker process lives."""
        self._database.write(lambda t: workers.seen(t, worker_id, host=host, slots=slots, device=device))

    def worker_gone(self, worker_id: str) -> None:
        """A worker process ends."""
        self._database.write(lambda t: workers.gone(t, worker_id))

    def live_workers(self, max_age_seconds: float) -> Sequence[Worker]:
        """Workers seen in the last `max_age_seconds`, the one that has lived longest first."""
        return self._database.read(lambda connection: workers.living(connection, max_age_seconds))

    def unserved(self, max_age_seconds: float) -> Sequence[DeviceClass]:
        """The classes for which jobs are queued, and no worker seen in the last `max_age_seconds` serves them."""
        return self._database.read(lambda connection: workers.unserved(connection, max_age_seconds))


def _counted(kind: str, *, held: bool) -> bool:
    """`held`; a write that was refused because another has the job is counted."""
    if not held:
        STALE_WRITES.labels(kind).inc()
    return held


def _tell(found: Sweep) -> None:
    """A line for every lease that expired."""
    for outcome in OUTCOMES:
        LEASES_EXPIRED.labels(outcome).inc(len(getattr(found, outcome)))
        for job_id in getattr(found, outcome):
            told = "queued again" if outcome == "expired" else outcome
            log.warning("a worker was lost", extra={"job_id": job_id, "attempt": found.attempts[job_id], "now": told})
