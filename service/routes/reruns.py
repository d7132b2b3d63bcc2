"""/jobs/{id}/retry and /jobs/{id}/continue: make a new job from a finished one."""

from anyio import to_thread
from fastapi import APIRouter, BackgroundTasks, Request, Response

from dfkd.wire.job import JobView
from dfkd_core.inspection.resolve import resolve
from dfkd_core.planning.forecast import Continuation
from jobs.broker import notify
from jobs.errors import CheckpointExpired
from jobs.ledger.lineage import Origin
from jobs.lifecycle.idempotency import JOB_OUTCOME
from jobs.models import Job, JobState
from service.dependencies import AppContext, Context, JobId
from service.intake import bodies
from service.intake.continuation import check_budget, continued_spec, leaves_steps_open, readable_spec
from service.intake.idempotency import Idempotency, IdempotentRequest
from service.intake.submit import accept_request, inspected
from service.intake.trace_context import traceparent_of
from service.problems.errors import UnsupportedMediaType
from service.representation import examples
from service.representation.openapi import KEY_REFUSALS, LIMIT_REFUSALS, problems
from service.representation.responses import job_accepted

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

_ALWAYS = (
    "job-not-found", "invalid-transition", "validation-error", "plan-infeasible", *KEY_REFUSALS, *LIMIT_REFUSALS,
    "unavailable",
)  # fmt: skip


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
    request: Request, context: Context, job_id: JobId, idempotency: Idempotency, background: BackgroundTasks
) -> Response:
    """Creates a job with the same teacher and the same spec, which starts from the beginning. Its `retried_from` names
    the old job.
    """
    if idempotency.repeats():
        return idempotency.response(JOB_OUTCOME, job_accepted)
    job = context.store.get(job_id)
    new = accept_request(
        context,
        readable_spec(job),
        job.teacher.id,
        traceparent=traceparent_of(request),
        origin=Origin(job_id, continues=False),
        recorder=idempotency.recorder(status=202),
    )
    background.add_task(notify, context.celery, new.id, new.device_class)
    return idempotency.response(JOB_OUTCOME, job_accepted)


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
    request: Request, context: Context, job_id: JobId, idempotency: Idempotency, background: BackgroundTasks
) -> Response:
    """Creates a job that continues from the last checkpoint of a finished job with a larger budget. Its
    `continued_from` names the old job. The body holds only what changes of the spec: `distillation.budget`, `name`,
    `labels`, `device`.

    `steps` includes the steps of the old job. Another `effort` without `steps` means the steps of a run of that
    effort with this job's other settings. The schedules are those of a run that had the new budget from its beginning.
    `max_seconds` counts from the start of the new job.
    """
    if bodies.media_type_of(request) != "application/json":
        raise UnsupportedMediaType("This route reads application/json.")
    text = await bodies.read_json(request, context.settings)
    new = await to_thread.run_sync(_continue, request, context, job_id, text, idempotency)
    if new is not None:
        background.add_task(notify, context.celery, new.id, new.device_class)
    return idempotency.response(JOB_OUTCOME, job_accepted)


def _continue(
    request: Request, context: AppContext, job_id: str, text: bytes, idempotency: IdempotentRequest
) -> Job | None:
    """Create the job and return it; return None if the request repeats an earlier one, which is answered again."""
    job = context.store.get(job_id)
    spec = continued_spec(job, text, max_bytes=context.settings.max_spec_bytes)
    by_effort = leaves_steps_open(spec)
    if not by_effort:
        check_budget(job, spec, by_effort=False)
    if idempotency.repeats(spec=spec.model_dump(mode="json")):
        return None
    if not context.artifacts.exists(context.store.last_checkpoint(job_id)):
        raise CheckpointExpired
    if by_effort:
        _, spec, inspection = inspected(context, spec, job.teacher.id)
        spec, _, _ = resolve(spec, inspection)
        check_budget(job, spec, by_effort=True)
    return accept_request(
        context,
        spec,
        job.teacher.id,
        traceparent=traceparent_of(request),
        origin=Origin(job_id, continues=True),
        before=Continuation(steps=job.progress.step, draws_again=job.state is JobState.SUCCEEDED),
        recorder=idempotency.recorder(status=202),
    )
