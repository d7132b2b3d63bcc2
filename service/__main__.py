"""`python -m service`: the API alone, with the settings of the environment. Its workers run elsewhere."""

import argparse
import sys

import uvicorn

from dfkd_core.spec.overrides import BadOption
from jobs.errors import LedgerError
from jobs.log_context import log_to_stderr
from jobs.settings import settings_from_environment
from service.app import create_app
from service.embedded.bind_check import CannotStart, check_address
from service.middleware.h11_protocol import Protocol

CLOSE_SECONDS = 10


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m service", description="The API of dfkd.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    told = parser.parse_args()
    try:
        settings = settings_from_environment()
        log_to_stderr(settings.log_format)
        check_address(told.host, settings)
    except CannotStart as error:
        sys.exit(f"the API cannot start: {error.detail}. {error.hint or ''}".strip())
    except (BadOption, LedgerError) as error:
        sys.exit(f"the API cannot start: {error}")
    uvicorn.run(
        create_app(settings),
        host=told.host,
        port=told.port,
        http=Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )


if __name__ == "__main__":
    main()
