"""The log of service and worker: one line for each event, as text for people or as JSON for machines.

Inside `about` all modules' lines carry the id of the request or job. A thread that is started inside does not inherit
this; run it in a copy of the context (`contextvars.copy_context`).
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_ORDINARY = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
_about: ContextVar[Mapping[str, object]] = ContextVar("dfkd_about", default={})  # noqa: B039 - never changed in place


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Add these fields to every line that is logged inside the block. Fields that are None are left out."""
    known = {name: value for name, value in fields.items() if value is not None}
    before = _about.set({**_about.get(), **known})
    try:
        yield
    finally:
        _about.reset(before)


class AboutFilter(logging.Filter):
    """Adds the fields of `about` to a record. Fields of the record itself take precedence."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass."""
        for name, value in _about.get().items():
            record.__dict__.setdefault(name, value)
        return True


class LineFormatter(logging.Formatter):
    """Time, level, logger, message, key=value ..."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """Format the record as one line, even if its message has line ends."""
        return "".join(_visible(character) for character in super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with a traceback below it where there is one."""
        first, separator, rest = super().format(record).partition("\n")
        extra = [f"{key}={value!r}" for key, value in _extra(record).items()]
        return " ".join([first, *extra]) + separator + rest


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, then the fields of `extra` and `about`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is in `exception`."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fixed = {"at": at, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fixed["exception"] = self.formatException(record.exc_info)
        return json.dumps({**fixed, **_extra(record), **fixed}, default=str)


def log_to_stderr(form: str = "text") -> None:
    """Log to standard error as `text` or `json`. Only entry points call this."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else LineFormatter())
    handler.addFilter(AboutFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("alembic", "celery", "kombu", "uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _visible(character: str) -> str:
    """Escape line ends and control characters, so that a message can neither forge a line nor control a terminal."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _ORDINARY}
