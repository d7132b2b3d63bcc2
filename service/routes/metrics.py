"""/metrics: the metrics of the service in Prometheus' text format."""

from fastapi import APIRouter, Response
from starlette.responses import PlainTextResponse

from service.dependencies import Context
from service.middleware import metrics

router = APIRouter(tags=["service"])

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
)
def metrics_text(context: Context) -> Response:
    """Returns statistics of the ledger and counters of this process. docs/operations.md explains each metric.

    If the database does not answer, the response has `dfkd_ledger_up 0` and the counters of this process.
    """
    found = metrics.text(context.ledger, worker_seconds=context.settings.lease_seconds)
    return Response(found, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
