"""The API key of a client: from the environment or a file, never from the words of a command, which others can see."""

import os
import re
from collections.abc import Generator
from pathlib import Path

import httpx

from dfkd_core.spec.overrides import BadOption

VARIABLES = VARIABLE, FILE_VARIABLE = "DFKD_API_KEY", "DFKD_API_KEY_FILE"
_KEY = re.compile(r"[\x21-\x7e]{1,1024}")


class Bearer(httpx.Auth):
    """Sends a key with every request, and shows it nowhere else."""

    def __init__(self, key: str) -> None:
        """BadOption, which does not repeat it, for what cannot be a key."""
        if not _KEY.fullmatch(key):
            raise BadOption("the API key is not one line of visible ASCII characters")
        self._header = f"Bearer {key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Once; a refusal is an answer."""
        request.headers["Authorization"] = self._header
        yield request


def bearer(key: str | None) -> Bearer | None:
    """`key`, or that of the environment; None where there is neither. BadOption."""
    found = key if key is not None else key_in_environment()
    return Bearer(found) if found else None


def key_in_environment() -> str:
    """DFKD_API_KEY, or what is in the file that DFKD_API_KEY_FILE names; else empty. BadOption."""
    path = os.environ.get(FILE_VARIABLE)
    if VARIABLE in os.environ or not path:
        return os.environ.get(VARIABLE, "").strip()
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        raise BadOption(f"{FILE_VARIABLE}: no API key can be read from {path!r}") from None
