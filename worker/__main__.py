"""`python -m worker`: one worker process with the settings of the environment."""

import logging
import os

from jobs.settings import Settings
from worker.app import work


class _Formatter(logging.Formatter):
    """One line an event: time, level, logger, message, and what `extra` brought along as key=value."""

    _ordinary = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        extra = [f"{key}={value!r}" for key, value in record.__dict__.items() if key not in self._ordinary]
        return " ".join([line, *extra])


def main() -> None:
    """Set up the log and work until told to stop."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("celery").setLevel(logging.WARNING)
    work(Settings())
    logging.shutdown()
    os._exit(0)  # a consumer thread that hangs on its broker must not keep the process


if __name__ == "__main__":
    main()
