"""Responses with a JSON body, and the headers that make polling cheap."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import Response

from dfkd.wire.model import Answer
from jobs.models import Job, JobWithPosition
from service.representation.views import job_view

_POLL_SECONDS = ((60.0, 1), (600.0, 5))  # pairs (age, pause) in seconds: the pause of jobs that are younger than age
_POLL_SECONDS_LATER = 15


def json_response(view: Answer, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a wire model as a JSON response that no cache may keep."""
    fixed = {"Cache-Control": "no-store", **(headers or {})}
    return Response(view.model_dump_json(), status_code=status, media_type="application/json", headers=fixed)


def job_response(
    job: Job,
    queue_position: int | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> Response:
    """Return a job as it was at the time `at` (default: now), with its weak ETag, and with Retry-After until it has
    ended.
    """
    fields = {"ETag": f'W/"{job.revision}-{queue_position or 0}"', **(headers or {})}
    if not job.state.terminal:
        fields["Retry-After"] = retry_after(job, at)
    return json_response(job_view(job, queue_position=queue_position, at=at), status=status, headers=fields)


def job_changed(found: JobWithPosition, status: int, at: datetime) -> Response:
    """Return the response to a request that changed a job."""
    return job_response(*found, status=status, at=at)


def job_accepted(found: JobWithPosition, status: int, at: datetime) -> Response:
    """Return the response to a request that created a job."""
    return job_response(*found, status=status, headers={"Location": f"/jobs/{found.job.id}"}, at=at)


def not_modified(response: Response) -> Response:
    """304 in place of `response`, with those of its headers that a 304 must repeat (RFC 9110, 15.4.5)."""
    repeated = ("etag", "cache-control", "retry-after")
    headers = {name: response.headers[name] for name in repeated if name in response.headers}
    return Response(status_code=304, headers=headers)


def retry_after(job: Job, at: datetime | None = None) -> str:
    """Seconds after which a client should ask again. The pause grows with the age of the job."""
    age = ((at or datetime.now(UTC)) - job.created_at).total_seconds()
    return str(next((wait for younger, wait in _POLL_SECONDS if age < younger), _POLL_SECONDS_LATER))


def repr_digest(sha256: str) -> str:
    """Return a Repr-Digest field (RFC 9530) for a hexadecimal sha256."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
