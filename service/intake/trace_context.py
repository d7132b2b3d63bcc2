"""The `traceparent` header (W3C Trace Context): kept with the job and in the log; what is not valid is ignored."""

import re

from starlette.requests import Request

_HEADER = re.compile(r"(?P<version>[0-9a-f]{2})-(?P<rest>(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2})")


def traceparent_of(request: Request) -> str | None:
    """Return the header in the form of version 00; None if it is missing or not valid."""
    given = request.headers.getlist("traceparent")
    return _understood(given[0].strip()) if len(given) == 1 else None


def _understood(text: str) -> str | None:
    """Later versions may add fields behind ours; version ff and zeros mean nothing."""
    found = _HEADER.match(text)
    if found is None or found["version"] == "ff" or not int(found["trace"], 16) or not int(found["parent"], 16):
        return None
    more = text[found.end() :]
    if more and (found["version"] == "00" or not more.startswith("-")):
        return None
    return f"00-{found['rest']}"
