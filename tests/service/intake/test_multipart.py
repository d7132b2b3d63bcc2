"""The streaming multipart reader: the same parts however the bytes are cut, and every broken body refused."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.intake.multipart import MAX_PART_HEADERS, MAX_PARTS, MultipartReader, boundary_of
from service.problems.errors import ApiError, MalformedMultipart, UnsupportedMediaType
from tests.service.harness import BOUNDARY, multipart

PARTS = [("spec", b'{"a": 1}'), ("teacher", b"\r\n--a-boundary-of-our\r\n--" + bytes(range(256)) * 3), ("empty", b"")]


async def pieces(body: bytes, cut: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), cut):
        yield body[start : start + cut]


def read(body: bytes, *, cut: int = 65536) -> list[tuple[str, bytes]]:
    async def collect() -> list[tuple[str, bytes]]:
        reader = MultipartReader(pieces(body, cut), BOUNDARY.encode())
        return [(part.name, b"".join([chunk async for chunk in reader.chunks()])) async for part in reader.parts()]

    return asyncio.run(collect())


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 19, 64, 65536])
def test_the_parts_come_out_whole_however_the_body_is_cut(cut: int) -> None:
    assert read(multipart(PARTS), cut=cut) == PARTS


@given(content=st.binary(max_size=300), cut=st.integers(1, 40))
def test_any_content_survives(content: bytes, cut: int) -> None:
    if f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + content:
        assert read(multipart([("teacher", content)]), cut=cut) == [("teacher", content)]


def test_unread_parts_are_skipped() -> None:
    async def names() -> list[str]:
        reader = MultipartReader(pieces(multipart(PARTS), 10), BOUNDARY.encode())
        return [part.name async for part in reader.parts()]

    assert asyncio.run(names()) == ["spec", "teacher", "empty"]


def headers(lines: str) -> bytes:
    return f"--{BOUNDARY}\r\n{lines}\r\n\r\ncontent\r\n--{BOUNDARY}--\r\n".encode()


NAMED = 'Content-Disposition: form-data; name="spec"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no multipart at all",
        multipart(PARTS, end=False),
        multipart(PARTS)[:-8],
        b"x" * 5_000_000 + multipart(PARTS),
        multipart([("p", b"")] * (MAX_PARTS + 1)),
        headers("X: " + "y" * 100_000 + "\r\n" + NAMED),
        headers("\r\n".join(f"X-{index}: y" for index in range(MAX_PART_HEADERS + 1))),
        headers("Content-Type: text/plain"),
        headers("Content-Disposition: form-data"),
        headers('Content-Disposition: attachment; name="spec"'),
        headers("no colon here"),
        multipart(PARTS) + b"z" * 100_000,
    ],
)
def test_a_broken_body_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMultipart):
        read(body)


def test_a_transfer_encoding_is_refused() -> None:
    with pytest.raises(UnsupportedMediaType):
        read(headers(f"{NAMED}\r\nContent-Transfer-Encoding: base64"))


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'b' * 300}",
    ],
)
def test_a_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(ApiError):
        boundary_of(content_type)
