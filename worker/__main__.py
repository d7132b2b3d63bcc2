"""`python -m worker`: one worker process with the settings of its environment."""

import logging
import os
import sys

from dfkd_core.extras import MissingExtra, exit_without, require_or_exit

log = logging.getLogger(__name__)


def main() -> None:
    """Run the worker until it is told to stop; without the extra `worker`, say what to install."""
    require_or_exit("worker", program="python -m worker")
    from dfkd_core.errors import SandboxUnavailable
    from dfkd_core.sandbox.detect import ADVICE
    from dfkd_core.spec.overrides import BadOption
    from jobs.errors import LedgerError
    from jobs.log_context import log_to_stderr
    from jobs.settings import settings_from_environment
    from worker.app import work

    try:
        settings = settings_from_environment()
    except MissingExtra as error:
        exit_without(error, program="python -m worker")
    except BadOption as error:
        sys.exit(f"the worker cannot start: {error}")
    log_to_stderr(settings.log_format)
    try:
        work(settings)
    except SandboxUnavailable as error:
        sys.exit(f"the worker cannot start: {error.detail} ({'; '.join(error.reasons)}). {ADVICE}")
    except LedgerError as error:
        log.critical("the worker cannot start", extra={"reason": str(error)})
        sys.exit(1)
    logging.shutdown()
    os._exit(0)  # a consumer thread that hangs on its broker must not keep the process alive


if __name__ == "__main__":
    main()
