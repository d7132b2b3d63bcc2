"""Conditional and range requests (RFC 9110 13, 14): entity tags and single byte ranges."""

import re

from service.problems.errors import RangeNotSatisfiable

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.IGNORECASE)


def etag_matches(header: str | None, etag: str) -> bool:
    """True if If-None-Match names `etag`, by weak comparison."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in _TAG.findall(header)}


def byte_range(header: str | None, if_range: str | None, *, etag: str, size: int) -> tuple[int, int] | None:
    """First and last byte (inclusive) to send, or None for the whole file.

    The whole file is sent, as the RFC allows, for several ranges, for other units than bytes, for a header that cannot
    be parsed, and for a range whose If-Range names another ETag.

    Raises:
        RangeNotSatisfiable: the range lies outside the file.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(size - 1, int(match[2])) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    if first >= size or last < first:
        raise RangeNotSatisfiable(
            "The range lies outside the file.",
            headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
        )
    return first, last
