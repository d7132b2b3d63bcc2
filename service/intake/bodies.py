"""Reads request bodies as streams with a limit on size and on idle time, never as a whole in memory."""

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.requests import Request

from jobs.settings import Settings
from service.problems.errors import FieldError, PayloadTooLarge, RequestTimeout, UnsupportedMediaType, ValidationFailed

SUBMISSIONS = {("POST", "/jobs"), ("POST", "/plans")}
"""Operations that take a teacher and a spec."""
OCTETS = "application/octet-stream"
"""The media type of a body that is a teacher's file and nothing else."""
FRAMING_BYTES = 64 * 1024  # what a multipart body may need beside its two parts
LEAST_BYTES = 1024  # at least this much in `upload_idle_seconds`; single bytes would hold a connection for ever


def media_type_of(request: Request) -> str:
    """Return the request's media type, without parameters; empty when it names none."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


def limit_for(request: Request, settings: Settings) -> int:
    """Return the most bytes that the body of this request may have."""
    operation = (request.method, request.scope["path"])
    if operation == ("POST", "/teachers") and media_type_of(request) != "multipart/form-data":
        return settings.max_upload_bytes
    if operation == ("POST", "/teachers") or (
        operation in SUBMISSIONS and media_type_of(request) != "application/json"
    ):
        return settings.max_upload_bytes + settings.max_spec_bytes + FRAMING_BYTES
    return settings.max_spec_bytes


def check_headers(request: Request, settings: Settings) -> None:
    """Refuse a body by its headers, before it is read; called by `service.middleware.authentication`."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body as it is, without a content encoding.")
    declared = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        error = FieldError("", "must be a whole number", parameter="content-length")
        raise ValidationFailed("The content length is not valid.", errors=[error])
    limit = limit_for(request, settings)
    if int(declared) > limit:
        raise PayloadTooLarge("The body is too large.", max_bytes=limit)


async def stream(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """Yield the body's chunks.

    Raises:
        PayloadTooLarge: the body is larger than allowed.
        RequestTimeout: fewer than LEAST_BYTES came in `upload_idle_seconds` of waiting.
    """
    max_bytes, idle_seconds = limit_for(request, settings), settings.upload_idle_seconds
    received, lately, waited = 0, 0, 0.0
    chunks = request.stream()
    while True:
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(idle_seconds - waited):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise RequestTimeout(f"Less than {LEAST_BYTES} bytes came in {idle_seconds:g} seconds.") from None
        if chunk is None:
            return
        received, lately = received + len(chunk), lately + len(chunk)
        waited += time.monotonic() - asked_at
        if lately >= LEAST_BYTES:
            lately, waited = 0, 0.0
        if received > max_bytes:
            raise PayloadTooLarge("The body is too large.", max_bytes=max_bytes)
        yield chunk


async def read_json(request: Request, settings: Settings) -> bytes:
    """Return a body of JSON, as text; raises as `stream` and `read` do."""
    return await read(stream(request, settings), max_bytes=settings.max_spec_bytes)


async def read(chunks: AsyncIterator[bytes], *, max_bytes: int) -> bytes:
    """Return the whole of a small body or part.

    Raises:
        PayloadTooLarge: it is larger than `max_bytes`.
    """
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) > max_bytes:
            raise PayloadTooLarge("The JSON document is too large.", max_bytes=max_bytes)
    return bytes(held)
