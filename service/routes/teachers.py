"""/teachers: upload once, use in many jobs."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service import examples
from service.dependencies import OurDesk, TeacherId
from service.intake import accept_teacher
from service.openapi import problems
from service.replies import json_response
from service.uploads import receive_octets
from service.views import TeacherView, teacher_view

router = APIRouter(prefix="/teachers", tags=["teachers"])


@router.post(
    "",
    status_code=201,
    operation_id="upload_teacher",
    summary="Upload a teacher",
    response_model=TeacherView,
    openapi_extra={"requestBody": examples.UPLOAD_TEACHER_BODY, "parameters": examples.DIGEST_HEADERS},
    responses={
        200: {"model": TeacherView, "description": "These bytes were here already."},
        201: examples.TEACHER_CREATED,
        **problems(
            "request-timeout", "payload-too-large", "format-unsupported", "unsupported-media-type",
            "validation-error", "digest-mismatch", "teacher-invalid", "teacher-op-unsupported", "teacher-mismatch",
            "unavailable", "storage-full",
        ),
    },
)  # fmt: skip
async def upload_teacher(request: Request, desk: OurDesk) -> Response:
    """The raw file as `application/octet-stream`. Its id is its sha256, so uploading it again changes nothing.

    Declare the digest (`Repr-Digest: sha-256=:…:` or `X-Content-SHA256`) to have the transfer checked.
    """
    teacher = await receive_octets(request, desk.settings, desk.artifacts)
    kept, new = await to_thread.run_sync(accept_teacher, desk, teacher, limiter=desk.inspections)
    return json_response(teacher_view(kept), status=201 if new else 200, headers={"Location": f"/teachers/{kept.id}"})


@router.get(
    "/{teacher_id}",
    operation_id="get_teacher",
    summary="Show a teacher",
    response_model=TeacherView,
    responses=problems("teacher-not-found", "unavailable"),
)
def get_teacher(desk: OurDesk, teacher_id: TeacherId) -> Response:
    """What the structural inspection found when the file arrived."""
    return json_response(teacher_view(desk.store.get_teacher(teacher_id)))
