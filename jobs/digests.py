"""Digests: the sha256 names under which files are kept."""

import re

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether this can be the name of a blob."""
    return _SHA256.fullmatch(text) is not None
