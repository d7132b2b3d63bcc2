"""Digests: the sha256 names under which files are kept."""

import re

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """True if `text` has the form of a sha256 in hexadecimal."""
    return _SHA256.fullmatch(text) is not None
