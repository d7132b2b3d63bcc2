"""Answers every exception with application/problem+json (RFC 9457); code, title and status come from the table."""

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from dfkd_core.errors import DfkdError, OperatorUnsupported
from dfkd_core.spec.json_pointer import child_pointer
from jobs.errors import BadCursor, InvalidTransition, LedgerError, QuotaExceeded, RequestInProgress, UploadTooLarge
from jobs.quota_limits import Quota
from service.problems.errors import MAX_ERRORS, ApiError, FieldError, MethodNotAllowed, NotFound, ValidationFailed
from service.problems.table import BY_CODE, INTERNAL, Row, row_for

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
IN_PROGRESS_SECONDS = 2  # most requests are answered by then, whatever their lease

QUOTA_HINTS = {
    Quota.QUEUED_JOBS: "Wait until some of the queued jobs have been claimed, or cancel some.",
    Quota.RUNNING_JOBS: "Jobs wait in the queue until others have ended.",
    Quota.STORED_BYTES: "Delete finished jobs that are not needed. A teacher that was sent before is named by its id.",
    Quota.DEVICE_SECONDS: "The day ends at midnight UTC; what is queued goes on by itself.",
}


def problem_response(error: Exception, *, request_id: str) -> Response:
    """Return the response to a request that raised `error`."""
    row = row_for(error)
    return _response(
        row, row.status or 500, request_id=request_id, members=_members(error), headers=_headers(error, row)
    )


def install(app: FastAPI) -> None:
    """Register the handlers for all exceptions that a route or the framework raises."""
    app.add_exception_handler(ApiError, error_response)
    app.add_exception_handler(LedgerError, error_response)
    app.add_exception_handler(DfkdError, error_response)
    app.add_exception_handler(RequestValidationError, _handle_validation)
    app.add_exception_handler(HTTPException, _handle_http)


def request_id_of(request: Request) -> str:
    """Return the id that `RequestIdMiddleware` gave to this request."""
    return str(request.state.request_id)


def error_response(request: Request, error: Exception) -> Response:
    """Return the response to this request, which raised `error`; notes the code for the metrics."""
    request.state.problem = row_for(error).code  # for `service.middleware.metrics`
    return problem_response(error, request_id=request_id_of(request))


def _handle_validation(request: Request, error: Exception) -> Response:
    """FastAPI's own refusal of query, path and header parameters."""
    assert isinstance(error, RequestValidationError)
    errors = [
        FieldError("", str(entry["msg"]), parameter=_parameter(entry["loc"])) for entry in error.errors()[:MAX_ERRORS]
    ]
    return error_response(request, ValidationFailed("A parameter is not valid.", errors=errors))


def _parameter(location: tuple[str | int, ...]) -> str:
    """Return the name of a parameter; its place if the name is not fit to be repeated."""
    name = str(location[1]) if len(location) > 1 else ""
    return child_pointer("", name)[1:] or str(location[0])


def _handle_http(request: Request, error: Exception) -> Response:
    """Answer what routing raises: 404, 405 and other refusals of Starlette."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(request, NotFound("Nothing lives at this path.", hint="GET /docs lists what there is."))
    if error.status_code == 405:
        allow = ", ".join(allowed_methods(request))
        return error_response(request, MethodNotAllowed(f"This path takes {allow}.", headers={"Allow": allow}))
    row = BY_CODE["bad-request"] if error.status_code < 500 else INTERNAL
    return _response(row, error.status_code, request_id=request_id_of(request), members={"detail": row.meaning})


def allowed_methods(request: Request) -> list[str]:
    """Every method that some route takes at this path. (The router names those of its first match only.)"""
    methods: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.scope["path"]):
            methods |= {name.upper() for name in operations}
    return sorted(methods) or ["GET", "HEAD"]  # documents outside the schema: /docs, /openapi.json


def _members(error: Exception) -> dict[str, Any]:
    """Return the members of the problem that describe this occurrence.

    An exception that is not ours adds none of its text.
    """
    if isinstance(error, ApiError):
        errors = {"errors": [entry.as_json() for entry in error.errors]} if error.errors else {}
        return {"detail": error.detail, "hint": error.hint, **errors, **error.members}
    if isinstance(error, DfkdError):
        errors = {"errors": [{"pointer": error.pointer, "detail": error.detail}]} if error.pointer else {}
        nodes = {"nodes": error.nodes} if isinstance(error, OperatorUnsupported) else {}
        return {"detail": error.detail, "hint": error.hint, **errors, **nodes}
    return _ledger_members(error) or {"detail": row_for(error).meaning}


def _ledger_members(error: Exception) -> dict[str, Any] | None:
    if isinstance(error, InvalidTransition):
        return {"detail": str(error), "state": str(error.state), "allowed": [str(state) for state in error.allowed]}
    if isinstance(error, BadCursor):
        return {"detail": "The cursor is not valid.", "errors": [{"parameter": "cursor", "detail": str(error)}]}
    if isinstance(error, UploadTooLarge):
        return {"detail": str(error), "max_bytes": error.max_bytes}
    if isinstance(error, QuotaExceeded):
        found = {"quota": error.quota, "limit": error.limit, "used": error.used}
        return {"detail": str(error), "hint": QUOTA_HINTS[Quota(error.quota)], **found}
    return None


def _headers(error: Exception, row: Row) -> dict[str, str]:
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if isinstance(error, RequestInProgress):
        headers["Retry-After"] = str(min(IN_PROGRESS_SECONDS, math.ceil(error.retry_after_seconds)))
    if isinstance(error, QuotaExceeded) and error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    if row.status in {503, 507}:
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return headers


def _response(
    row: Row, status: int, *, request_id: str, members: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    body = {
        "type": row.type,
        "title": row.title,
        "status": status,
        "code": row.code,
        "instance": f"urn:uuid:{request_id}",
        "request_id": request_id,
        **{name: value for name, value in members.items() if value is not None},
    }
    fixed = {"Cache-Control": "no-store", **(headers or {})}
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=fixed)
