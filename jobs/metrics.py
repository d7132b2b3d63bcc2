"""Counters of one process for Prometheus, used by service and worker.

Each counter starts at 0 with its process; sum them over the processes. Figures of the whole deployment come from the
ledger instead; see `jobs.ledger.statistics`.
"""

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(namespace="dfkd", registry=REGISTRY)

LEASES_EXPIRED = Counter(
    "dfkd_lease_expired", "Leases that this process found expired, by what became of the job.", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip
STALE_WRITES = Counter(
    "dfkd_stale_write_refused", "Writes of an attempt that had lost its job, refused by the ledger.", ["kind"],
    registry=REGISTRY,
)  # fmt: skip
DOORBELL_FAILURES = Counter("dfkd_doorbell_failures", "Notifications that the broker did not take.", registry=REGISTRY)
DOORBELLS_RERUNG = Counter(
    "dfkd_doorbell_rerung", "Notifications that a sweep sent again for waiting jobs.", registry=REGISTRY
)
JANITOR_BYTES = Counter(
    "dfkd_janitor_deleted_bytes", "Bytes of the files that the janitor removed: nothing referred to them.",
    registry=REGISTRY,
)  # fmt: skip

QUOTA_REFUSED = Counter(
    "dfkd_quota_refused", "Submissions refused because their tenant has what it may have.", ["quota"], registry=REGISTRY
)
RATE_LIMITED = Counter("dfkd_rate_limited", "Requests refused because too many came.", ["policy"], registry=REGISTRY)
RATE_LIMIT_FAILURES = Counter(
    "dfkd_rate_limit_failures", "Times at which the shared counters of requests did not answer.", registry=REGISTRY
)

OUTCOMES = ("expired", "failed", "cancelled", "paused")
WRITES = ("heartbeat", "record", "checkpoint", "succeed", "fail", "cancelled", "paused", "release")

for _outcome in OUTCOMES:
    LEASES_EXPIRED.labels(_outcome)  # reported as 0 from the beginning, because a rise needs a first value
for _kind in WRITES:
    STALE_WRITES.labels(_kind)


def text() -> bytes:
    """Return all counters of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
