"""`python -m worker`: one worker process with the settings of the environment."""

import logging
import os

from jobs.logs import log_to_stderr
from jobs.settings import Settings
from worker.app import work


def main() -> None:
    """Work until told to stop."""
    log_to_stderr()
    work(Settings())
    logging.shutdown()
    os._exit(0)  # a consumer thread that hangs on its broker must not keep the process


if __name__ == "__main__":
    main()
