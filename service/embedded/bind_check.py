"""Checks before the API listens: an address that other machines can reach needs API keys."""

import logging
import socket
from contextlib import closing

from dfkd_core.errors import DfkdError
from jobs.settings import Settings
from jobs.store import open_store
from service.middleware.authentication import is_loopback

log = logging.getLogger(__name__)


class CannotStart(DfkdError):
    """The service cannot start before its operator changes something; nothing was started."""

    code = "cannot-start"


def check_address(host: str, settings: Settings) -> None:
    """Check that the API requires keys if other machines can reach `host`, unless the settings turn keys off.

    Raises:
        CannotStart: the API would require no key from other machines, or `host` is not an address of this machine.
        LedgerUnavailable: the database with the keys does not answer.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise CannotStart(f"{host!r} is not an address of this machine: {error.strerror}") from error
    if settings.auth == "required" or all(is_loopback(str(entry[4][0])) for entry in found):
        return
    if settings.auth == "off":
        log.warning("other machines can reach the API, and it asks nobody for a key", extra={"host": host})
    elif not _has_keys(settings):
        raise CannotStart(
            f"{host} can be reached from other machines, and there is no API key yet",
            hint="`dfkd keys create` makes one. Or set DFKD_AUTH=required and make it later; or DFKD_AUTH=off where "
            "something in front checks who asks.",
        )


def _has_keys(settings: Settings) -> bool:
    """True if a key was ever made. A database file that does not exist is not created."""
    if settings.database_url is None and not settings.sqlite_path.exists():
        return False
    with closing(open_store(settings)) as store:
        return store.api_keys.usable().ever
