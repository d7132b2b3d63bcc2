"""The exceptions of the API itself. `dfkd_core.errors` explains `code`, `title` and `status`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dfkd_core.errors import CodedError

MAX_ERRORS = 20  # fields that one problem lists


class FieldError(NamedTuple):
    """An invalid field: a JSON pointer into the document, or the name of a query parameter or header."""

    pointer: str
    detail: str
    parameter: str | None = None

    def as_json(self) -> dict[str, str]:
        if self.parameter is not None:
            return {"parameter": self.parameter, "detail": self.detail}
        return {"pointer": self.pointer, "detail": self.detail}


class ApiError(CodedError):
    """The service refuses a request: `detail` says why, `hint` what to do, `members` are added to the problem."""

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,  # extension members of RFC 9457: any JSON value
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members = members


class Unauthenticated(ApiError):
    """The request needs `Authorization: Bearer KEY` with a key that is known, not expired and not revoked."""

    code, title, status = "unauthenticated", "Not authenticated", 401


class InsufficientScope(ApiError):
    """The key is valid, but lacks the scope that `WWW-Authenticate` names."""

    code, title, status = "insufficient-scope", "Not allowed with this key", 403


class BadRequest(ApiError):
    """The request cannot be understood."""

    code, title, status = "bad-request", "Bad request", 400


class HeadersTooLarge(ApiError):
    """The request has more headers than are read."""

    code, title, status = "headers-too-large", "Headers too large", 431


class MalformedJson(ApiError):
    """The body is not JSON: its syntax, encoding, byte-order mark or nesting is wrong."""

    code, title, status = "malformed-json", "Malformed JSON", 400


class MalformedMultipart(ApiError):
    """The body is not multipart/form-data: boundary or part headers are broken, the end is missing, or there is text
    around the parts.
    """

    code, title, status = "malformed-multipart", "Malformed multipart body", 400


class UnexpectedPart(ApiError):
    """A part is neither `teacher` nor `spec`, or came twice."""

    code, title, status = "unexpected-part", "Unexpected part", 400


class MissingPart(ApiError):
    """The multipart body lacks `teacher` or `spec`; both are needed."""

    code, title, status = "missing-part", "Part missing", 422


class ValidationFailed(ApiError):
    """Fields are not valid: `errors` lists up to 20, each with a JSON `pointer` into the document or a `parameter` of
    the query or headers.
    """

    code, title, status = "validation-error", "Not valid", 422


class PlanInfeasible(ApiError):
    """No known class of workers has the memory for the job, or `max_seconds` is less than one student takes: `needed`
    and `allowed` are the figures. Where no worker was ever seen, no job is refused for this.
    """

    code, title, status = "plan-infeasible", "No worker can do this", 422


class PayloadTooLarge(ApiError):
    """The body or a part of it is larger than `max_bytes`."""

    code, title, status = "payload-too-large", "Payload too large", 413


class UnsupportedMediaType(ApiError):
    """This route does not read a body of this type or encoding."""

    code, title, status = "unsupported-media-type", "Media type not supported", 415


class RequestTimeout(ApiError):
    """The body stopped coming, or came too slowly."""

    code, title, status = "request-timeout", "Request timed out", 408


class DigestMismatch(ApiError):
    """The bytes that arrived do not have the digest that the client declared."""

    code, title, status = "digest-mismatch", "Digest mismatch", 422


class IdempotencyKeyReused(ApiError):
    """Another request, with another body or to another path, was answered under this `Idempotency-Key`."""

    code, title, status = "idempotency-key-reused", "Idempotency key reused", 422


class RateLimited(ApiError):
    """More than `limit` requests came in the window; ask again after `Retry-After` seconds."""

    code, title, status = "rate-limited", "Too many requests", 429


class NotFound(ApiError):
    """There is nothing at this path."""

    code, title, status = "not-found", "No such resource", 404


class MethodNotAllowed(ApiError):
    """The path does not take this method; `Allow` names those that it takes."""

    code, title, status = "method-not-allowed", "Method not allowed", 405


class ArtifactNotReady(ApiError):
    """The job has not finished; ask again after `Retry-After` seconds."""

    code, title, status = "artifact-not-ready", "Artifact not ready", 409


class ArtifactExpired(ApiError):
    """The job finished longer ago than its files are kept."""

    code, title, status = "artifact-expired", "Artifact expired", 410


class RangeNotSatisfiable(ApiError):
    """The range lies outside the file; `Content-Range` has the size of the file."""

    code, title, status = "range-not-satisfiable", "Range not satisfiable", 416
