"""Bodies as our client sends them: read from the file while they are sent."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

CHUNK_BYTES = 256 * 1024


def multipart_frame(boundary: str, spec: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """What stands before and after the teacher's bytes; the spec comes first, so that a wrong one is refused early."""
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="spec"\r\nContent-Type: application/json\r\n\r\n'
        f"{json.dumps(spec)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="teacher"; filename="teacher"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()


def framed(head: bytes, file: BinaryIO, tail: bytes) -> Iterator[bytes]:
    yield head
    yield from chunks(file)
    yield tail


def chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
