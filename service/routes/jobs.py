"""/jobs: accept, list, show, cancel, delete."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, BackgroundTasks, Query, Request, Response
from starlette.datastructures import URL

from dfkd.wire.deletion import PurgeView
from dfkd.wire.job import JobList, JobView, ListQuery
from jobs.broker import notify
from jobs.lifecycle.deletion import remove_files
from jobs.lifecycle.idempotency import JOB_OUTCOME
from jobs.models import Job, JobState
from service.dependencies import AppContext, Context, JobId
from service.intake import bodies
from service.intake.idempotency import Idempotency, IdempotentRequest
from service.intake.spec_parsing import read_request
from service.intake.submit import accept_request, accept_submission, check_quota
from service.intake.trace_context import traceparent_of
from service.intake.uploads import receive_submission
from service.problems.errors import FieldError, ValidationFailed
from service.representation import examples
from service.representation.http_conditional import etag_matches
from service.representation.openapi import KEY_REFUSALS, LIMIT_REFUSALS, problems
from service.representation.responses import job_accepted, job_changed, job_response, json_response, not_modified
from service.representation.views import job_view, purge_view

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LABEL = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,62})=([A-Za-z0-9][A-Za-z0-9_.-]{0,62})")


@router.post(
    "",
    status_code=202,
    operation_id="create_job",
    summary="Accept a job",
    response_model=JobView,
    openapi_extra={"requestBody": examples.CREATE_JOB_BODY, "parameters": examples.TRACEPARENT},
    responses={
        202: examples.JOB_ACCEPTED,
        **problems(
            "malformed-json", "malformed-multipart", "unexpected-part", "teacher-not-found", "request-timeout",
            "payload-too-large", "format-unsupported", "unsupported-media-type", "validation-error", "missing-part",
            "teacher-invalid", "teacher-op-unsupported", "teacher-mismatch", "student-infeasible",
            "student-not-smaller", "requirement-unmet", "plan-infeasible", *KEY_REFUSALS, *LIMIT_REFUSALS,
            "artifact-lost", "artifact-corrupt", "unavailable", "storage-full",
        ),
    },
)  # fmt: skip
async def create_job(
    request: Request, context: Context, idempotency: Idempotency, background: BackgroundTasks
) -> Response:
    """Send `multipart/form-data` with the parts `teacher` (the file) and `spec` (JSON) in any order. For a teacher that
    was uploaded before, send the spec alone as `application/json`, with the teacher's id in `teacher.id`.

    The service inspects the file and checks the spec against it before it creates the job. A refused request leaves
    nothing behind. The job keeps and shows the spec with all defaults filled in.
    """
    await check_quota(request, context, idempotency)
    job = await _accept(request, context, idempotency)
    if job is not None:
        background.add_task(notify, context.celery, job.id, job.device_class)
    return idempotency.response(JOB_OUTCOME, job_accepted)


async def _accept(request: Request, context: AppContext, idempotency: IdempotentRequest) -> Job | None:
    """Create the job and return it; return None if the request repeats an earlier one, which is answered again."""
    if bodies.media_type_of(request) == "application/json":
        text = await bodies.read_json(request, context.settings)
        spec, teacher_id = read_request(text, max_bytes=context.settings.max_spec_bytes)
        if idempotency.repeats(spec=spec.request(), teacher=teacher_id):
            return None
        accept = partial(accept_request, context, spec, teacher_id)
    else:
        submission = await receive_submission(request, context.settings, context.artifacts)
        with submission.discarded_on_error():
            if idempotency.repeats(**submission.content()):
                submission.discard()
                return None
        accept = partial(accept_submission, context, submission)
    accept_traced = partial(accept, traceparent=traceparent_of(request), recorder=idempotency.recorder(status=202))
    return await to_thread.run_sync(accept_traced, limiter=context.inspections)


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    response_model=JobList,
    responses=problems("validation-error", "unavailable"),
)
def list_jobs(request: Request, context: Context, query: Annotated[ListQuery, Query()]) -> Response:
    """Returns one page of jobs. The header `Link: rel=next` leads to the next page, which does not change when new jobs
    arrive. `queue_position` is null here; `GET /jobs/{job_id}` shows it.
    """
    page = context.store.list(
        query.limit, cursor=query.cursor, states=_states(query.state) or None, labels=_labels(query.label)
    )
    headers = {}
    if page.next_cursor is not None:
        following = URL(f"/jobs?{request.query_params}").include_query_params(cursor=page.next_cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    jobs = [job_view(job) for job in page.jobs]
    return json_response(JobList(jobs=jobs, next_cursor=page.next_cursor), headers=headers)


def _states(given: Sequence[str]) -> list[JobState]:
    names = [name for text in given for name in text.split(",")]
    try:
        return [JobState(name) for name in names]
    except ValueError:
        error = FieldError("", f"must be among {', '.join(JobState)}", parameter="state")
        raise ValidationFailed("No such state.", errors=[error]) from None


def _labels(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        match = _LABEL.fullmatch(text)
        if match is None or found.setdefault(match[1], match[2]) != match[2]:
            error = FieldError("", "must be key=value, each key once", parameter="label")
            raise ValidationFailed("Not a label.", errors=[error])
    return found


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Show a job",
    response_model=JobView,
    responses={200: examples.JOB, 304: examples.NOT_MODIFIED, **problems("job-not-found", "unavailable")},
)
async def get_job(request: Request, context: Context, job_id: JobId) -> Response:
    """To poll cheaply, send the ETag back in `If-None-Match` and wait `Retry-After` seconds between two requests."""
    job = context.store.get_nowait(job_id)
    if job is None or job.state is JobState.QUEUED:
        response = job_response(*await context.job_with_position(job_id))
    else:
        response = job_response(job)
    if etag_matches(request.headers.get("if-none-match"), response.headers["etag"]):
        return not_modified(response)
    return response


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    operation_id="cancel_job",
    summary="Cancel a job",
    response_model=JobView,
    responses={
        200: {"model": JobView, "description": "The job was already cancelled or being cancelled."},
        **problems("job-not-found", "invalid-transition", *KEY_REFUSALS, "unavailable"),
    },
)
def cancel_job(context: Context, job_id: JobId, idempotency: Idempotency) -> Response:
    """A queued job is cancelled at once. A running job is `cancelling` until its worker has stopped it."""
    if idempotency.repeats():
        return idempotency.response(JOB_OUTCOME, job_changed)
    before = context.store.get(job_id)
    status = 200 if before.public_state in {"cancelled", "cancelling"} else 202
    context.store.request_cancel(job_id, recorder=idempotency.recorder(status=status))
    return idempotency.response(JOB_OUTCOME, job_changed)


@router.delete(
    "/{job_id}",
    operation_id="delete_job",
    summary="Delete a finished job and its files",
    response_model=PurgeView,
    responses={200: examples.PURGED, **problems("job-not-found", "invalid-transition", "unavailable")},
)
def delete_job(context: Context, job_id: JobId) -> Response:
    """Removes the job, its history, its artifacts, its checkpoints and the answers that are kept for idempotency keys.
    A teacher that was sent with the job is removed too, unless another job uses it.

    The receipt lists what was removed, and what stays and why. The service does not keep the receipt.
    """
    forgotten = context.store.delete(job_id)
    return json_response(purge_view(remove_files(forgotten, context.artifacts, context.ledger.referenced)))
