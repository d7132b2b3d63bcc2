"""/teachers: upload a teacher once and use it in many jobs."""

from datetime import datetime
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from dfkd.wire.deletion import PurgeView
from dfkd.wire.teacher import TeacherView
from jobs.lifecycle.deletion import remove_files
from jobs.lifecycle.idempotency import TEACHER_OUTCOME
from jobs.models import TeacherRef
from service.dependencies import Context, TeacherId
from service.intake.idempotency import Idempotency
from service.intake.submit import accept_teacher, check_quota
from service.intake.uploads import receive_upload
from service.representation import examples
from service.representation.openapi import KEY_REFUSALS, LIMIT_REFUSALS, problems
from service.representation.responses import json_response
from service.representation.views import purge_view, teacher_view

router = APIRouter(prefix="/teachers", tags=["teachers"])


@router.post(
    "",
    status_code=201,
    operation_id="upload_teacher",
    summary="Upload a teacher",
    response_model=TeacherView,
    openapi_extra={"requestBody": examples.UPLOAD_TEACHER_BODY, "parameters": examples.DIGEST_HEADERS},
    responses={
        200: {"model": TeacherView, "description": "The tenant already has this file."},
        201: examples.TEACHER_CREATED,
        **problems(
            "malformed-json", "malformed-multipart", "unexpected-part", "request-timeout", "payload-too-large",
            "format-unsupported", "unsupported-media-type", "validation-error", "missing-part", "digest-mismatch",
            "teacher-invalid", "teacher-op-unsupported", "teacher-mismatch", *KEY_REFUSALS, *LIMIT_REFUSALS,
            "unavailable", "storage-full",
        ),
    },
)  # fmt: skip
async def upload_teacher(request: Request, context: Context, idempotency: Idempotency) -> Response:
    """Send the raw file as `application/octet-stream`. The teacher's id is the sha256 of the file, so a second upload
    of the same file changes nothing. Send the digest in `Repr-Digest: sha-256=:…:` or `X-Content-SHA256` to have the
    transfer checked.

    To say something of the teacher, such as the shape of its images or which of its outputs holds the classes, send
    `multipart/form-data` with the parts `teacher` (the file) and `spec` (JSON: the `teacher` of a job's spec). It is
    kept with the teacher: jobs that name the teacher by its id need not repeat it, and what a job says itself wins. A
    later upload of the same file with a `spec` replaces it.
    """
    await check_quota(request, context, idempotency)
    upload = await receive_upload(request, context.settings, context.artifacts)
    with upload.discarded_on_error():
        if idempotency.repeats(**upload.content()):
            upload.discard()
            return idempotency.response(TEACHER_OUTCOME, _kept)
    assert upload.teacher is not None  # it came, or the upload was refused
    accept = partial(accept_teacher, context, upload.teacher, upload.spec, recorder=idempotency.recorder(status=201))
    await to_thread.run_sync(accept, limiter=context.inspections)
    return idempotency.response(TEACHER_OUTCOME, _kept)


def _kept(outcome: tuple[TeacherRef, bool], status: int, _: datetime) -> Response:
    kept, new = outcome
    location = {"Location": f"/teachers/{kept.id}"}
    return json_response(teacher_view(kept), status=status if new else 200, headers=location)


@router.get(
    "/{teacher_id}",
    operation_id="get_teacher",
    summary="Show a teacher",
    response_model=TeacherView,
    responses=problems("teacher-not-found", "unavailable"),
)
def get_teacher(context: Context, teacher_id: TeacherId) -> Response:
    """Returns what the inspection found when the file was uploaded, and which methods it allows."""
    return json_response(teacher_view(context.store.get_teacher(teacher_id)))


@router.delete(
    "/{teacher_id}",
    operation_id="delete_teacher",
    summary="Delete a teacher",
    response_model=PurgeView,
    responses={200: examples.PURGED, **problems("teacher-not-found", "teacher-in-use", "unavailable")},
)
def delete_teacher(context: Context, teacher_id: TeacherId) -> Response:
    """Removes the file, its inspection, and the checkpoints of the finished jobs that used it. These jobs stay, with
    their students, but they can neither be retried nor continued. Other tenants that uploaded the same file keep it.
    """
    forgotten = context.store.delete_teacher(teacher_id)
    return json_response(purge_view(remove_files(forgotten, context.artifacts, context.ledger.referenced)))
