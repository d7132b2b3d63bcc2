"""/jobs/{id}/retry and /jobs/{id}/continue: new jobs that come from finished ones."""

from anyio import to_thread
from fastapi import APIRouter, BackgroundTasks, Request, Response

from dfkd.wire.job import JobView
from jobs.broker import ring
from jobs.errors import CheckpointExpired
from jobs.ledger.lineage import Origin
from jobs.models import Job
from service.dependencies import Desk, JobId, OurDesk
from service.intake import bodies
from service.intake.continuation import continued_spec, readable_spec
from service.intake.idempotency import Exchange, OurExchange
from service.intake.submit import accept_request
from service.intake.trace_context import traceparent_of
from service.problems.errors import UnsupportedMediaType
from service.representation import examples
from service.representation.openapi import KEY_REFUSALS, LIMIT_REFUSALS, problems
from service.representation.responses import job_accepted

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

_ALWAYS = ("job-not-found", "invalid-transition", "validation-error", *KEY_REFUSALS, *LIMIT_REFUSALS, "unavailable")


@router.post(
    "/retry",
    status_code=202,
    operation_id="retry_job",
    summary="Run a finished job once more",
    response_model=JobView,
    openapi_extra={"parameters": examples.TRACEPARENT},
    responses={202: examples.JOB_ACCEPTED, **problems(*_ALWAYS)},
)
def retry_job(
    request: Request, desk: OurDesk, job_id: JobId, exchange: OurExchange, background: BackgroundTasks
) -> Response:
    """A new job with the same teacher and the same spec, from the beginning; `retried_from` names the old one."""
    if exchange.asks():
        return exchange.reply
    job = desk.store.get(job_id)
    new = accept_request(
        desk,
        readable_spec(job),
        job.teacher.id,
        traceparent=traceparent_of(request),
        origin=Origin(job_id, continues=False),
        receipt=exchange.receipt(job_accepted),
    )
    background.add_task(ring, desk.celery, new.id, new.device_class)
    return exchange.reply


@router.post(
    "/continue",
    status_code=202,
    operation_id="continue_job",
    summary="Go on with a finished job",
    response_model=JobView,
    openapi_extra={"requestBody": examples.CONTINUE_JOB_BODY, "parameters": examples.TRACEPARENT},
    responses={
        202: examples.JOB_ACCEPTED,
        **problems(
            *_ALWAYS, "malformed-json", "request-timeout", "payload-too-large", "unsupported-media-type",
            "checkpoint-expired",
        ),
    },
)  # fmt: skip
async def continue_job(
    request: Request, desk: OurDesk, job_id: JobId, exchange: OurExchange, background: BackgroundTasks
) -> Response:
    """A new job that goes on from the last checkpoint of a finished one under a larger budget; `continued_from` names
    the old one. The body is the part of the spec that changes: `distillation.budget`, `name`, `labels`, `device`.

    `steps` counts those of the old job, too. The schedules go on as those of a run with the new budget do at that step;
    `max_seconds` counts from zero.
    """
    if bodies.media_type_of(request) != "application/json":
        raise UnsupportedMediaType("This route reads application/json.")
    text = await bodies.read_json(request, desk.settings)
    new = await to_thread.run_sync(_continue, request, desk, job_id, text, exchange)
    if new is not None:
        background.add_task(ring, desk.celery, new.id, new.device_class)
    return exchange.reply


def _continue(request: Request, desk: Desk, job_id: str, text: bytes, exchange: Exchange) -> Job | None:
    job = desk.store.get(job_id)
    spec = continued_spec(job, text, max_bytes=desk.settings.max_spec_bytes)
    if exchange.asks(spec=spec.model_dump(mode="json")):
        return None
    if not desk.artifacts.exists(desk.store.last_checkpoint(job_id)):
        raise CheckpointExpired
    return accept_request(
        desk,
        spec,
        job.teacher.id,
        traceparent=traceparent_of(request),
        origin=Origin(job_id, continues=True),
        receipt=exchange.receipt(job_accepted),
    )
