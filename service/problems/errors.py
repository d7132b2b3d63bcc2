"""What can go wrong at the front desk. The codes and statuses are in `service.problems.table`, in one table.

ApiError
├── Unauthenticated        no key, or none that is valid
├── InsufficientScope      the key does not allow this
├── BadRequest             headers that contradict each other, or name no host
├── HeadersTooLarge        more headers than are read
├── MalformedJson          not JSON as RFC 8259 means it
├── MalformedMultipart     not multipart/form-data as RFC 7578 means it
├── UnexpectedPart         a part that nobody asked for, or one that came twice
├── MissingPart            `teacher` or `spec` did not come
├── ValidationFailed       well-formed, but not what the schema says
├── PayloadTooLarge        more bytes than the settings allow
├── UnsupportedMediaType   a body, or an encoding of it, that this route does not read
├── RequestTimeout         the body stopped coming
├── DigestMismatch         the bytes do not have the digest that the client declared
├── IdempotencyKeyReused   the key belongs to another request
├── RateLimited            too many requests in a while
├── NotFound               no such route
├── MethodNotAllowed       the route exists, the method does not
├── ArtifactNotReady       the job has not finished yet
├── ArtifactExpired        the job has finished too long ago
└── RangeNotSatisfiable    a range outside the file
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class FieldError(NamedTuple):
    """One field to blame: a JSON pointer into the document, or the name of a query parameter or header."""

    pointer: str
    detail: str
    parameter: str | None = None

    def as_json(self) -> dict[str, str]:
        if self.parameter is not None:
            return {"parameter": self.parameter, "detail": self.detail}
        return {"pointer": self.pointer, "detail": self.detail}


class ApiError(Exception):
    """A request that cannot be served: `detail` says why, `hint` what to do, `members` go into the problem."""

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
    """No key, or none that is valid."""


class InsufficientScope(ApiError):
    """The key does not allow this."""


class BadRequest(ApiError):
    """Headers that contradict each other, or name no host."""


class HeadersTooLarge(ApiError):
    """More headers than are read."""


class MalformedJson(ApiError):
    """Not JSON as RFC 8259 means it."""


class MalformedMultipart(ApiError):
    """Not multipart/form-data as RFC 7578 means it."""


class UnexpectedPart(ApiError):
    """A part that nobody asked for, or one that came twice."""


class MissingPart(ApiError):
    """`teacher` or `spec` did not come."""


class ValidationFailed(ApiError):
    """Well-formed, but not what the schema says."""


class PayloadTooLarge(ApiError):
    """More bytes than the settings allow."""


class UnsupportedMediaType(ApiError):
    """A body, or an encoding of it, that this route does not read."""


class RequestTimeout(ApiError):
    """The body stopped coming."""


class DigestMismatch(ApiError):
    """The bytes do not have the digest that the client declared."""


class IdempotencyKeyReused(ApiError):
    """The key belongs to another request."""


class RateLimited(ApiError):
    """Too many requests in a while."""


class NotFound(ApiError):
    """No such route."""


class MethodNotAllowed(ApiError):
    """The route exists, the method does not."""


class ArtifactNotReady(ApiError):
    """The job has not finished yet."""


class ArtifactExpired(ApiError):
    """The job has finished too long ago."""


class RangeNotSatisfiable(ApiError):
    """A range outside the file."""
