"""/plans: what a job would take, before anything is spent."""

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from dfkd.wire.plan import PlanView
from service.dependencies import Context
from service.intake import bodies
from service.intake.plans import plan_request, plan_submission
from service.intake.spec_parsing import read_request
from service.intake.uploads import receive_submission
from service.representation import examples
from service.representation.openapi import problems
from service.representation.plan_view import plan_view
from service.representation.responses import json_response

router = APIRouter(prefix="/plans", tags=["jobs"])


@router.post(
    "",
    operation_id="plan_job",
    summary="Say what a job would take",
    response_model=PlanView,
    openapi_extra={"requestBody": examples.CREATE_JOB_BODY},
    responses={
        200: examples.PLANNED,
        **problems(
            "malformed-json", "malformed-multipart", "unexpected-part", "teacher-not-found", "request-timeout",
            "payload-too-large", "format-unsupported", "unsupported-media-type", "validation-error", "missing-part",
            "teacher-invalid", "teacher-op-unsupported", "teacher-mismatch", "student-infeasible",
            "student-not-smaller", "requirement-unmet", "rate-limited", "artifact-lost", "artifact-corrupt",
            "unavailable", "storage-full",
        ),
    },
)  # fmt: skip
async def plan_job(request: Request, context: Context) -> Response:
    """Takes the body of POST /jobs and keeps nothing. For every effort and method that fits the teacher, it returns
    seconds and memory on each class of workers that was ever seen, and whether they fit the limits.

    The first option is what the spec asks for as it is; POST /jobs would accept it if `fits` is true.
    """
    if bodies.media_type_of(request) == "application/json":
        text = await bodies.read_json(request, context.settings)
        spec, teacher_id = read_request(text, max_bytes=context.settings.max_spec_bytes)
        make = partial(plan_request, context, spec, teacher_id)
    else:
        submission = await receive_submission(request, context.settings, context.artifacts)
        make = partial(plan_submission, context, submission)
    found = await to_thread.run_sync(make, limiter=context.inspections)
    return json_response(plan_view(found))
