"""Bodies of requests that the client sends: the teacher's file is read while it is sent, never as a whole."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

CHUNK_BYTES = 256 * 1024


def multipart_frame(boundary: str, spec: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the bytes before and after the teacher's bytes in a multipart/form-data body.

    The part `spec` comes first, so that the service can refuse a wrong spec before it has read the teacher.
    """
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="spec"\r\nContent-Type: application/json\r\n\r\n'
        f"{json.dumps(spec)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="teacher"; filename="teacher"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()


def framed(head: bytes, file: BinaryIO, tail: bytes) -> Iterator[bytes]:
    """`head`, the content of `file`, `tail`."""
    yield head
    yield from chunks(file)
    yield tail


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of `file` from its beginning, in pieces of at most CHUNK_BYTES bytes."""
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
