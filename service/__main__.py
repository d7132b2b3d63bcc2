"""`python -m service`: the API alone, with the settings of the environment. Its workers run elsewhere."""

import argparse
import sys

from dfkd_core.extras import MissingExtra, exit_without, require_or_exit

CLOSE_SECONDS = 10


def main() -> None:
    """Serve until told to stop; without the extra `server`, say what to install."""
    parser = argparse.ArgumentParser(prog="python -m service", description="The API of dfkd.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    options = parser.parse_args()
    require_or_exit("server", program="python -m service")
    serve(options.host, options.port)


def serve(host: str, port: int) -> None:
    """Check the settings and the address, then serve. The libraries of the service are imported here."""
    import uvicorn

    from dfkd_core.spec.overrides import BadOption
    from jobs.errors import LedgerError
    from jobs.log_context import log_to_stderr
    from jobs.settings import settings_from_environment
    from service.app import create_app
    from service.embedded.bind_check import CannotStart, check_address
    from service.middleware.h11_protocol import Protocol

    try:
        settings = settings_from_environment()
        log_to_stderr(settings.log_format)
        check_address(host, settings)
    except MissingExtra as error:
        exit_without(error, program="python -m service")
    except CannotStart as error:
        sys.exit(f"the API cannot start: {error.detail}. {error.hint or ''}".strip())
    except (BadOption, LedgerError) as error:
        sys.exit(f"the API cannot start: {error}")
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        http=Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )


if __name__ == "__main__":
    main()
