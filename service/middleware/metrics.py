"""Metrics of the service: requests, refused uploads and the event loop's lag; at every scrape the ledger's figures."""

import time
from collections.abc import Iterable

import anyio
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs import metrics
from jobs.errors import LedgerError
from jobs.ledger.statistics import LedgerStatistics
from jobs.metrics import REGISTRY
from jobs.store import Store

HTTP_REQUESTS = Counter(
    "dfkd_http_requests", "Requests answered by this process.", ["method", "route", "status"], registry=REGISTRY
)
HTTP_SECONDS = Histogram(
    "dfkd_http_request_seconds",
    "Until the first byte of the answer.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)
UPLOADS_REJECTED = Counter(
    "dfkd_upload_rejected", "Requests refused by POST /jobs and POST /teachers.", ["code"], registry=REGISTRY
)
EVENT_LOOP_LAG = Histogram(
    "dfkd_event_loop_lag_seconds",
    "How late the event loop wakes what should run now; seen twice a second.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)

METHODS = {"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"}
UPLOADS = {"/jobs", "/teachers"}
_LAG_SECONDS = 0.5
_QUEUE = ["spec_version", "device_class"]


class MetricsMiddleware:
    """ASGI middleware: counts every request once, whether it was answered, refused or failed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, seconds = time.perf_counter(), 500, 0.0

        async def note(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - started
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            _count(scope, status, seconds)


def _count(scope: Scope, status: int, seconds: float) -> None:
    """Count a request. Labels hold nothing that a client can choose freely: each new value makes a new series."""
    method = scope["method"] if scope["method"] in METHODS else "other"
    known = scope["path"] if scope["path"] in UPLOADS else "other"  # of a request that was rejected before routing
    route = getattr(scope.get("route"), "path", known)
    HTTP_REQUESTS.labels(method, route, str(status)).inc()
    HTTP_SECONDS.labels(method, route).observe(seconds)
    if method == "POST" and route in UPLOADS and status >= 400:
        UPLOADS_REJECTED.labels(scope["state"].get("problem", "other")).inc()


async def watch_loop() -> None:
    """Measure the lag of the event loop until cancelled."""
    while True:
        asleep_at = time.perf_counter()
        await anyio.sleep(_LAG_SECONDS)
        EVENT_LOOP_LAG.observe(max(0.0, time.perf_counter() - asleep_at - _LAG_SECONDS))


def text(store: Store, *, worker_seconds: float) -> bytes:
    """Return the counters of this process and the ledger's figures; only the former if the database does not answer."""
    ledger = CollectorRegistry()
    try:
        ledger.register(LedgerCollector(store.statistics(worker_seconds=worker_seconds)))
    except LedgerError:
        ledger.register(LedgerCollector(None))
    return metrics.text() + generate_latest(ledger)


class LedgerCollector(Collector):
    """The ledger's figures as metrics."""

    def __init__(self, found: LedgerStatistics | None) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """Yield one metric after another."""
        found = self._found
        yield GaugeMetricFamily("dfkd_ledger_up", "1 while the database answers.", value=float(found is not None))
        if found is None:
            return
        depth = GaugeMetricFamily("dfkd_queue_depth", "Queued jobs that are due.", labels=_QUEUE)
        age = GaugeMetricFamily("dfkd_queue_oldest_age_seconds", "How long one of them has been due.", labels=_QUEUE)
        for (version, device_class), queue in found.queues.items():
            depth.add_metric([str(version), device_class], queue.depth)
            age.add_metric([str(version), device_class], queue.oldest_seconds)
        states = {state.value: count for state, count in found.jobs.items()}
        yield _gauge("dfkd_jobs", "Jobs in the ledger.", "state", states)
        yield depth
        yield age
        yield GaugeMetricFamily(
            "dfkd_crash_streak_max", "Crashes in a row without a newer checkpoint.", value=found.crash_streak_max
        )
        yield _gauge("dfkd_job_events", "Lines of the history of the jobs that are kept.", "kind", found.events)
        yield _gauge("dfkd_workers", "Workers with a recent heartbeat.", "device", found.workers)
        yield _gauge("dfkd_worker_slots", "Their slots.", "device", found.slots)
        yield _gauge("dfkd_stored_bytes", "Bytes of the files that are kept.", "kind", found.stored_bytes)
        yield _gauge("dfkd_worker_slots_busy", "Slots in which a job runs.", "device", found.busy)


def _gauge(name: str, documentation: str, label: str, values: dict[str, float] | dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
