"""/jobs/{id}/pause and /jobs/{id}/resume: stop a job at its next checkpoint, and queue it again."""

from fastapi import APIRouter, BackgroundTasks, Response

from dfkd.wire.job import JobView
from jobs.broker import notify
from jobs.lifecycle.idempotency import JOB_OUTCOME
from service.dependencies import Context, JobId
from service.intake.idempotency import Idempotency
from service.representation.openapi import KEY_REFUSALS, problems
from service.representation.responses import job_changed

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

_REFUSALS = problems("job-not-found", "invalid-transition", *KEY_REFUSALS, "unavailable")


@router.post(
    "/pause",
    status_code=202,
    operation_id="pause_job",
    summary="Pause a job",
    response_model=JobView,
    responses={200: {"model": JobView, "description": "The job was already paused or pausing."}, **_REFUSALS},
)
def pause_job(context: Context, job_id: JobId, idempotency: Idempotency) -> Response:
    """A queued job is paused at once. A running job is `pausing` until it has written a checkpoint and stopped.

    The stopped attempt does not count as an attempt. A paused job keeps its checkpoint until the job is deleted.
    """
    if idempotency.repeats():
        return idempotency.response(JOB_OUTCOME, job_changed)
    status = 200 if context.store.get(job_id).public_state in {"paused", "pausing"} else 202
    context.store.request_pause(job_id, recorder=idempotency.recorder(status=status))
    return idempotency.response(JOB_OUTCOME, job_changed)


@router.post(
    "/resume",
    status_code=202,
    operation_id="resume_job",
    summary="Resume a paused job",
    response_model=JobView,
    responses={200: {"model": JobView, "description": "The job was neither paused nor pausing."}, **_REFUSALS},
)
def resume_job(context: Context, job_id: JobId, idempotency: Idempotency, background: BackgroundTasks) -> Response:
    """A paused job returns to its old place in the queue and later continues from its checkpoint. For a job that is
    `pausing` the pause is withdrawn.
    """
    if idempotency.repeats():
        return idempotency.response(JOB_OUTCOME, job_changed)
    status = 202 if context.store.get(job_id).public_state in {"paused", "pausing"} else 200
    context.store.request_resume(job_id, recorder=idempotency.recorder(status=status))
    background.add_task(notify, context.celery, job_id)
    return idempotency.response(JOB_OUTCOME, job_changed)
