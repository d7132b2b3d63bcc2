"""How the log of service and worker looks: one line an event, what `extra` brought along at its end."""

import logging

_ORDINARY = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class LineFormatter(logging.Formatter):
    """Time, level, logger, message, key=value ..."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a traceback below it where there is one."""
        first, separator, rest = super().format(record).partition("\n")
        extra = [f"{key}={value!r}" for key, value in record.__dict__.items() if key not in _ORDINARY]
        return " ".join([first, *extra]) + separator + rest


def log_to_stderr() -> None:
    """Log what matters to an operator. For entry points only."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("alembic", "celery", "kombu", "uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
