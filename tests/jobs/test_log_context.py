"""Lines of the log: each event is one line, which names its request or job."""

import io
import json
import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from datetime import datetime

import pytest

from jobs.log_context import AboutFilter, JsonFormatter, LineFormatter, about


class Lines:
    """A logger of its own and what it wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.log = logging.getLogger(f"tests.{id(self)}")
        self.log.propagate = False
        self.log.setLevel(logging.INFO)
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter)
        handler.addFilter(AboutFilter())
        self.log.addHandler(handler)

    def told(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def lines() -> Lines:
    return Lines(JsonFormatter())


def test_a_line_is_one_json_object_with_what_extra_brought(lines: Lines) -> None:
    lines.log.warning("a %s\nline", "long", extra={"job_id": "x", "path": io, "message_id": 3, "level": "mine"})
    (line,) = lines.told()
    assert datetime.fromisoformat(str(line.pop("at"))).tzinfo is not None
    assert line.pop("path") == str(io)
    assert line == {
        "level": "WARNING",
        "logger": lines.log.name,
        "message": "a long\nline",
        "job_id": "x",
        "message_id": 3,
    }


def test_a_traceback_stays_in_its_line(lines: Lines) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        lines.log.exception("it failed")
    (line,) = lines.told()
    assert str(line["exception"]).endswith("ValueError: bad")


def test_lines_inside_say_whose_they_are_and_lines_behind_do_not(lines: Lines) -> None:
    with about(job_id="a", traceparent=None):
        with about(attempt=2):
            lines.log.info("inside")
            lines.log.info("closer", extra={"job_id": "b"})
        lines.log.info("outside")
    lines.log.info("behind")
    keys = [{key: line[key] for key in line if key in {"job_id", "attempt", "traceparent"}} for line in lines.told()]
    assert keys == [{"job_id": "a", "attempt": 2}, {"job_id": "b", "attempt": 2}, {"job_id": "a"}, {}]


def test_a_thread_that_runs_in_a_copy_knows_too(lines: Lines) -> None:
    with about(job_id="a"):
        stranger = threading.Thread(target=lines.log.info, args=("hello",))
        friend = threading.Thread(target=copy_context().run, args=(lines.log.info, "hello"))
        for thread in (stranger, friend):
            thread.start()
            thread.join()
    assert [line.get("job_id") for line in lines.told()] == [None, "a"]


def test_lines_for_people_end_with_the_same_fields() -> None:
    lines = Lines(LineFormatter())
    with about(job_id="a"):
        lines.log.info("job claimed", extra={"fence": 3})
    assert lines.stream.getvalue().endswith("job claimed fence=3 job_id='a'\n")


@pytest.mark.parametrize("formatter", [LineFormatter, JsonFormatter])
def test_nothing_that_is_logged_makes_a_second_line_or_drives_a_terminal(
    formatter: Callable[[], logging.Formatter],
) -> None:
    lines = Lines(formatter())
    nasty = "a\nERROR forged\r\u2028\u0085\x1b[2J\x9b1m\x00é"
    with about(tenant=nasty):
        lines.log.info("hello %s", nasty, extra={"path": nasty})
    written = lines.stream.getvalue()
    assert written.endswith("\n")
    assert len(written.splitlines()) == 1
    assert written[:-1].isprintable()
