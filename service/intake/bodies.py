"""Request bodies as streams: capped, watched for silence, never held in memory as a whole."""

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.requests import Request

from jobs.settings import Settings
from service.problems.errors import FieldError, PayloadTooLarge, RequestTimeout, UnsupportedMediaType, ValidationFailed

FRAMING_BYTES = 64 * 1024  # what a multipart body may need beside its two parts
LEAST_BYTES = 1024  # in `idle_seconds`: a byte now and then would hold a connection for ever


def media_type_of(request: Request) -> str:
    """The request's media type, without parameters; empty when it names none."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


def limit_for(request: Request, settings: Settings) -> int:
    """The most bytes that the body of this request may have."""
    operation = (request.method, request.scope["path"])
    if operation == ("POST", "/teachers"):
        return settings.max_upload_bytes
    if operation == ("POST", "/jobs") and media_type_of(request) != "application/json":
        return settings.max_upload_bytes + settings.max_spec_bytes + FRAMING_BYTES
    return settings.max_spec_bytes


def check_headers(request: Request, settings: Settings) -> None:
    """Refuse by the headers alone, before a byte of the body is read. For `service.middleware.authentication`."""
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
    """The body's chunks. PayloadTooLarge; RequestTimeout when `upload_idle_seconds` of waiting brought too little."""
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
    """A body of JSON, as text; raises as `stream` and `read` do."""
    return await read(stream(request, settings), max_bytes=settings.max_spec_bytes)


async def read(chunks: AsyncIterator[bytes], *, max_bytes: int) -> bytes:
    """All of a small body or part; raises PayloadTooLarge."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) > max_bytes:
            raise PayloadTooLarge("The JSON document is too large.", max_bytes=max_bytes)
    return bytes(held)
