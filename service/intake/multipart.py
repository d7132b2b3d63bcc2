"""Reads multipart/form-data as a stream of parts; only the current chunk is in memory, and everything is limited.

The form parsing of the framework stores whole bodies before a route runs. Here the route pulls the parts, so it can
refuse the body at any byte.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.problems.errors import MalformedMultipart, UnsupportedMediaType

MAX_PARTS = 8
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4096
MAX_EPILOGUE_BYTES = 1024
CHUNK_BYTES = 256 * 1024


@dataclass(slots=True)
class Part:
    """One part. Its bytes come from `MultipartReader.chunks`, before the next part."""

    name: str  # the client's file name is ignored


@dataclass(slots=True)
class _Headers:
    """The header lines of the part that is being read."""

    name: bytes = b""
    value: bytes = b""
    lines: dict[bytes, bytes] = field(default_factory=dict)

    def finish_line(self) -> None:
        self.lines[self.name.lower()] = self.value
        self.name = self.value = b""


_END_OF_PART = object()


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a multipart/form-data content type; raises UnsupportedMediaType, MalformedMultipart."""
    media_type, parameters = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        raise UnsupportedMediaType("This route reads multipart/form-data or application/json.")
    boundary = parameters.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise MalformedMultipart("The content type has no usable boundary.")
    return boundary


class MultipartReader:
    """Pull-style reader: `async for part in reader.parts()`, then `async for chunk in reader.chunks()`."""

    def __init__(self, body: AsyncIterator[bytes], boundary: bytes) -> None:
        self._body = body
        self._headers = _Headers()
        self._ended = False
        self._num_parts = 0
        self._epilogue_bytes = 0
        self._found: deque[Part | bytes | object] = deque()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_part_data": lambda data, start, end: self._found.append(bytes(data[start:end])),
                "on_part_end": lambda: self._found.append(_END_OF_PART),
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": lambda: self._found.append(_part(self._headers.lines)),
                "on_end": self._on_end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    async def parts(self) -> AsyncIterator[Part]:
        """Yield the parts in the order of the body; the unread rest of a part is skipped."""
        while await self._pull():
            found = self._found.popleft()
            if isinstance(found, Part):
                yield found

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the part that `parts` gave last, in pieces of about CHUNK_BYTES."""
        held = bytearray()
        while await self._pull():
            found = self._found.popleft()
            if found is _END_OF_PART:
                break
            assert isinstance(found, bytes)  # a part's data comes between its headers and its end
            held += found
            if len(held) >= CHUNK_BYTES:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)

    async def _pull(self) -> bool:
        """Parse on until something is found; False when the body is over and was complete."""
        while not self._found:
            data = await anext(self._body, None)
            if data is None:
                if not self._ended:
                    raise MalformedMultipart("The body stops before its closing boundary.")
                return False
            self._feed(data)
        return True

    def _feed(self, data: bytes) -> None:
        if self._ended:
            self._epilogue_bytes += len(data)
            if self._epilogue_bytes > MAX_EPILOGUE_BYTES:
                raise MalformedMultipart("There is text after the closing boundary.")
            return
        try:
            self._parser.write(data)
        except FormParserError:
            raise MalformedMultipart("The boundaries or headers of the parts are broken.") from None

    def _on_part_begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise MalformedMultipart(f"There are more than {MAX_PARTS} parts.")
        self._headers = _Headers()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._headers.name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers.value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers.finish_line()

    def _on_end(self) -> None:
        self._ended = True


def _part(headers: dict[bytes, bytes]) -> Part:
    disposition, parameters = parse_options_header(headers.get(b"content-disposition", b""))
    if disposition != b"form-data" or b"name" not in parameters:
        raise MalformedMultipart("A part has no Content-Disposition: form-data with a name.")
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in {b"binary", b"8bit", b"7bit"}:
        raise UnsupportedMediaType("The parts must be sent as they are, without a transfer encoding.")
    return Part(name=parameters[b"name"].decode("utf-8", "replace"))
