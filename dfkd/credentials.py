"""The API key of a client: from the environment or from a file.

A key is never an argument of a command, because other users of the machine can read the arguments of its processes.
"""

import os
import re
from collections.abc import Generator
from pathlib import Path

import httpx

from dfkd.errors import UsageError

VARIABLE, FILE_VARIABLE = "DFKD_API_KEY", "DFKD_API_KEY_FILE"
_KEY = re.compile(r"[\x21-\x7e]{1,1024}")


class Bearer(httpx.Auth):
    """Sends a key with every request, and shows it nowhere else."""

    def __init__(self, key: str) -> None:
        """Check the form of the key.

        Raises:
            UsageError: this text cannot be a key. The message does not repeat the text.
        """
        if not _KEY.fullmatch(key):
            raise UsageError("the API key is not one line of visible ASCII characters")
        self._header = f"Bearer {key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request once. A refusal of the key is an answer like any other."""
        request.headers["Authorization"] = self._header
        yield request


def bearer(key: str | None) -> Bearer | None:
    """Return the given key, or the key of the environment; None where there is neither.

    Raises:
        UsageError: the key, or the file that should hold it, cannot be used.
    """
    found = key if key is not None else key_in_environment()
    return Bearer(found) if found else None


def key_in_environment() -> str:
    """Return the value of DFKD_API_KEY, else the content of the file that DFKD_API_KEY_FILE names, else an empty text.

    Raises:
        UsageError: the file cannot be read.
    """
    path = os.environ.get(FILE_VARIABLE)
    if VARIABLE in os.environ or not path:
        return os.environ.get(VARIABLE, "").strip()
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        raise UsageError(f"{FILE_VARIABLE}: no API key can be read from {path!r}") from None
