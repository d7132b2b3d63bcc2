"""/jobs/{id}/pause and /jobs/{id}/resume."""

from functools import partial

from fastapi import APIRouter, BackgroundTasks, Response

from dfkd.wire.job import JobView
from jobs.broker import ring
from service.dependencies import JobId, OurDesk
from service.intake.idempotency import OurExchange
from service.representation.openapi import KEY_REFUSALS, problems
from service.representation.responses import job_reply

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

_REFUSALS = problems("job-not-found", "invalid-transition", *KEY_REFUSALS, "unavailable")


@router.post(
    "/pause",
    status_code=202,
    operation_id="pause_job",
    summary="Pause a job",
    response_model=JobView,
    responses={200: {"model": JobView, "description": "It was paused, or pausing, already."}, **_REFUSALS},
)
def pause_job(desk: OurDesk, job_id: JobId, exchange: OurExchange) -> Response:
    """A queued job is paused at once, a running one as soon as it has written a checkpoint and stopped (`pausing`).

    The attempt that is stopped is not counted, and a paused job keeps its checkpoint for as long as it exists.
    """
    if exchange.asks():
        return exchange.reply
    status = 200 if desk.store.get(job_id).public_state in {"paused", "pausing"} else 202
    desk.store.request_pause(job_id, receipt=exchange.receipt(partial(job_reply, status=status)))
    return exchange.reply


@router.post(
    "/resume",
    status_code=202,
    operation_id="resume_job",
    summary="Resume a paused job",
    response_model=JobView,
    responses={200: {"model": JobView, "description": "It was neither paused nor pausing."}, **_REFUSALS},
)
def resume_job(desk: OurDesk, job_id: JobId, exchange: OurExchange, background: BackgroundTasks) -> Response:
    """A paused job is queued again, at its old place, and goes on from its checkpoint. A pending pause is off."""
    if exchange.asks():
        return exchange.reply
    status = 202 if desk.store.get(job_id).public_state in {"paused", "pausing"} else 200
    desk.store.request_resume(job_id, receipt=exchange.receipt(partial(job_reply, status=status)))
    background.add_task(ring, desk.celery, job_id)
    return exchange.reply
