"""Responses with a JSON body, and the headers that make polling cheap."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import Response

from dfkd.wire.model import Answer
from jobs.models import Job, JobWithPosition
from service.representation.views import job_view

_POLL_SECONDS = ((60.0, 1), (600.0, 5))  # (age of the job below which this holds, pause), both in seconds
_POLL_SECONDS_LATER = 15


def json_response(view: Answer, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model of the wire as JSON that no cache keeps."""
    fixed = {"Cache-Control": "no-store", **(headers or {})}
    return Response(view.model_dump_json(), status_code=status, media_type="application/json", headers=fixed)


def job_response(
    job: Job, queue_position: int | None = None, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A job with its weak ETag, and Retry-After while it is live."""
    fields = {"ETag": f'W/"{job.revision}-{queue_position or 0}"', **(headers or {})}
    if not job.state.terminal:
        fields["Retry-After"] = retry_after(job)
    return json_response(job_view(job, queue_position=queue_position), status=status, headers=fields)


def job_reply(found: JobWithPosition, *, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The response to a request that changed or created a job."""
    return job_response(*found, status=status, headers=headers)


def job_accepted(found: JobWithPosition) -> Response:
    """The response to a request that created a job."""
    return job_reply(found, status=202, headers={"Location": f"/jobs/{found.job.id}"})


def retry_after(job: Job) -> str:
    """Seconds after which a client should ask again: few while the job is young, more as it grows old."""
    age = (datetime.now(UTC) - job.created_at).total_seconds()
    return str(next((wait for younger, wait in _POLL_SECONDS if age < younger), _POLL_SECONDS_LATER))


def repr_digest(sha256: str) -> str:
    """A Repr-Digest field (RFC 9530) for a hexadecimal sha256."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
