"""What a worker counts, and its HTTP port for Prometheus, which is on loopback unless the settings say otherwise."""

import logging
from enum import StrEnum

from prometheus_client import Counter, Histogram, start_http_server

from jobs.ledger.leases import Claim
from jobs.metrics import REGISTRY
from jobs.settings import Settings

log = logging.getLogger(__name__)


class AttemptOutcome(StrEnum):
    """How attempts end: the label `class` of `dfkd_attempt_endings_total`."""

    PUBLISHED = "published"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    DRAINED = "drained"
    OVER_QUOTA = "over-quota"
    STOPPED = "stopped"
    SELF_FENCED = "self-fenced"
    FENCED_OUT = "fenced-out"
    ERROR = "error"
    CRASH = "crash"
    STALLED = "stalled"
    OUT_OF_MEMORY = "out-of-memory"
    TIME_LIMIT = "time-limit"
    STORAGE_FULL = "storage-full"
    FILES_REFUSED = "files-refused"
    MISFIT = "checkpoint-mismatch"
    HOST_TROUBLE = "host-trouble"
    ABANDONED = "abandoned"


ATTEMPT_OUTCOMES = Counter(
    "dfkd_attempt_endings", "Attempts of this worker, by how they ended.", ["class"], registry=REGISTRY
)
SELF_FENCED = Counter("dfkd_self_fenced", "Runners stopped because the lease was not confirmed.", registry=REGISTRY)
TAKEOVER = Histogram(
    "dfkd_takeover_seconds",
    "From the last heartbeat of a lost worker until this one took its job.",
    buckets=(1, 2, 5, 10, 30, 60, 90, 120, 300, 600, 1800),
    registry=REGISTRY,
)
WASTED_STEPS = Counter("dfkd_wasted_steps", "Student updates lost between checkpoint and end.", registry=REGISTRY)

for _outcome in AttemptOutcome:
    ATTEMPT_OUTCOMES.labels(_outcome.value)


def count_claim(claim: Claim) -> None:
    """Count a claim: how long the job had no worker, and how many of its steps are lost."""
    if claim.silent_seconds is not None:
        TAKEOVER.observe(claim.silent_seconds)
    if claim.fence > 1:
        WASTED_STEPS.inc(max(0, claim.job.progress.step - (claim.checkpoint_step or 0)))


def count_outcome(outcome: AttemptOutcome) -> None:
    """Count the end of an attempt."""
    ATTEMPT_OUTCOMES.labels(outcome.value).inc()
    if outcome is AttemptOutcome.SELF_FENCED:
        SELF_FENCED.inc()


def serve(settings: Settings) -> int | None:
    """Answer scrapes in a thread of its own and return the port, or None. A taken port does not stop the worker."""
    if settings.worker_metrics_port is None:
        return None
    try:
        server, _ = start_http_server(settings.worker_metrics_port, settings.worker_metrics_host, REGISTRY)
    except OSError as error:
        log.error("the metrics cannot be served", extra={"port": settings.worker_metrics_port, "reason": str(error)})
        return None
    log.info("metrics are served", extra={"port": server.server_port})
    return server.server_port
