"""/jobs/{id}/artifacts: the files of a finished job."""

import logging
from collections.abc import Iterator
from typing import BinaryIO

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dfkd.wire.artifact import ArtifactList
from jobs.errors import ArtifactLost, ArtifactNotFound
from jobs.models import ArtifactRef, Job, JobState
from service.dependencies import AppContext, Context, JobId
from service.problems.errors import ArtifactExpired, ArtifactNotReady
from service.representation import examples
from service.representation.http_conditional import byte_range, etag_matches
from service.representation.openapi import problems
from service.representation.responses import json_response, repr_digest, retry_after
from service.representation.views import artifact_view

log = logging.getLogger(__name__)

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["artifacts"])

NAMES = ("student.onnx", "student.safetensors", "report.json", "samples.png")
CHUNK_BYTES = 256 * 1024


@router.get(
    "",
    operation_id="list_artifacts",
    summary="List a job's files",
    response_model=ArtifactList,
    responses=problems("job-not-found", "unavailable"),
)
def list_artifacts(context: Context, job_id: JobId) -> Response:
    """The list is empty until the job has succeeded."""
    job = context.store.get(job_id)
    return json_response(ArtifactList(artifacts=[artifact_view(job.id, artifact) for artifact in job.artifacts]))


_REFUSALS = problems(
    "job-not-found",
    "artifact-not-found",
    "artifact-not-ready",
    "artifact-expired",
    "artifact-lost",
    "range-not-satisfiable",
    "artifact-corrupt",
    "unavailable",
)


@router.get(
    "/{name}",
    operation_id="download_artifact",
    summary="Download a file of a job",
    response_class=Response,
    responses={**examples.DOWNLOAD, **_REFUSALS},
)
@router.head(
    "/{name}",
    operation_id="head_artifact",
    summary="Size and digest of a file of a job",
    response_class=Response,
    responses={**examples.HEAD, **_REFUSALS},
)
def download_artifact(request: Request, context: Context, job_id: JobId, name: str) -> Response:
    """The digest of the stored bytes is checked before the first byte is sent. Single byte ranges are served."""
    artifact = _artifact(context.store.get(job_id), name)
    etag = f'"{artifact.sha256}"'
    headers = _headers(artifact, etag)
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    part = byte_range(request.headers.get("range"), request.headers.get("if-range"), etag=etag, size=artifact.bytes)
    if request.method == "HEAD":
        return _head(context, artifact, part, headers)
    return _download(context, job_id, artifact, part, headers)


def _head(
    context: AppContext, artifact: ArtifactRef, part: tuple[int, int] | None, headers: dict[str, str]
) -> Response:
    """The headers of a download of `part`, the first and last byte, or of the whole file if it is None.

    Raises:
        ArtifactLost: the ledger has the artifact, but the store has no such file.
    """
    if not context.artifacts.exists(artifact.sha256):
        raise ArtifactLost(artifact.sha256)
    return Response(
        status_code=200 if part is None else 206,
        headers=headers | _length_headers(artifact, part),
        media_type=artifact.media_type,
    )


def _download(
    context: AppContext, job_id: str, artifact: ArtifactRef, part: tuple[int, int] | None, headers: dict[str, str]
) -> Response:
    """The bytes of `part`, the first and last byte, or of the whole file if it is None."""
    first, last = part or (0, artifact.bytes - 1)
    return FileSlice(
        _open_for_download(context, job_id, artifact),
        first=first,
        last=last,
        status=200 if part is None else 206,
        headers=headers | _length_headers(artifact, part),
        media_type=artifact.media_type,
    )


def _length_headers(artifact: ArtifactRef, part: tuple[int, int] | None) -> dict[str, str]:
    """Content-Length and, for a part of the file, Content-Range."""
    if part is None:
        return {"Content-Length": str(artifact.bytes)}
    first, last = part
    return {"Content-Length": str(last - first + 1), "Content-Range": f"bytes {first}-{last}/{artifact.bytes}"}


def _artifact(job: Job, name: str) -> ArtifactRef:
    """The job's file with this name. The name is compared with fixed names; it never becomes a path.

    Raises:
        ArtifactNotFound: the job has no file of this name and will not have one.
        ArtifactExpired: the job succeeded, but its files are no longer kept.
        ArtifactNotReady: the job has not ended yet.
    """
    if name not in NAMES:
        raise ArtifactNotFound(name)
    for artifact in job.artifacts:
        if artifact.name == name:
            return artifact
    if job.state is JobState.SUCCEEDED:
        raise ArtifactExpired(
            "The files of this job were kept for the retention period, and that is over.",
            hint="Submit the same spec again: the same seed gives the same student.",
        )
    if job.state.terminal:
        raise ArtifactNotFound(name)
    raise ArtifactNotReady(
        f"The job is {job.public_state}; its files appear when it has succeeded.",
        headers={"Retry-After": retry_after(job)},
        state=job.public_state,
    )


def _open_for_download(context: AppContext, job_id: str, artifact: ArtifactRef) -> BinaryIO:
    """Open the verified bytes and record the download in the audit log, before the first byte is sent."""
    file = _opened(context, artifact.sha256)
    try:
        context.store.note_download(job_id, artifact.name)
    except BaseException:
        file.close()
        raise
    return file


def _opened(context: AppContext, sha256: str) -> BinaryIO:
    """The verified bytes of an artifact.

    Raises:
        ArtifactLost: the ledger has the artifact, but the store has no such file.
    """
    try:
        return context.artifacts.open(sha256)
    except ArtifactNotFound as error:
        log.critical("artifact lost", extra={"sha256": sha256})
        raise ArtifactLost(sha256) from error


def _headers(artifact: ArtifactRef, etag: str) -> dict[str, str]:
    return {
        "ETag": etag,
        "Repr-Digest": repr_digest(artifact.sha256),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",  # the file never changes, but no cache may serve it after a deletion
        "Content-Disposition": f'attachment; filename="{artifact.name}"',
    }


class FileSlice(StreamingResponse):
    """Bytes `first` to `last` of an opened file; the file is closed even if the client goes away."""

    def __init__(
        self, file: BinaryIO, *, first: int, last: int, status: int, headers: dict[str, str], media_type: str
    ) -> None:
        self._file = file
        super().__init__(
            _slices(file, first=first, last=last), status_code=status, headers=headers, media_type=media_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _slices(file: BinaryIO, *, first: int, last: int) -> Iterator[bytes]:
    file.seek(first)
    left = last - first + 1
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        left -= len(chunk)
        yield chunk
