"""No row of the fault table is forgotten, and the page says what was measured."""

import json
import re
from pathlib import Path

import pytest

from tests.chaos import page
from tests.chaos.scorecard import Score, Scorecard, lines, not_run, row_of
from tests.chaos.table import TABLE

HERE = Path(__file__).parent


def rows_with_tests() -> set[str]:
    names = [
        name for path in HERE.glob("test_*.py") for name in re.findall(r"^def (test_f\d\d\w+)", path.read_text(), re.M)
    ]
    return {str(row_of(f"tests/chaos/x.py::{name}")) for name in names}


def test_every_row_is_injected() -> None:
    elsewhere = {row.name for row in TABLE.values() if row.elsewhere}
    assert rows_with_tests() | elsewhere == TABLE.keys()


@pytest.mark.parametrize("path", [path for row in TABLE.values() for path in row.elsewhere])
def test_what_is_injected_elsewhere_is_there(path: str) -> None:
    file, _, name = path.partition("::")
    assert f"def {name}" in (HERE.parents[1] / file).read_text()
    assert row_of(path + "[sqlite]") in TABLE


def test_a_row_that_was_not_run_is_named_with_the_reason() -> None:
    scores = {name: Score() for name in TABLE}
    scores["F40"].skipped.add("Skipped: no root")
    reasons = not_run(scores)
    assert (reasons["F40"], reasons["F11"]) == ("Skipped: no root", "not selected")
    assert any("F40" in line and "no root" in line for line in lines(scores))


def test_the_worst_figure_and_the_failures_are_kept() -> None:
    card = Scorecard(None)
    for outcome, seconds in (("passed", 1.0), ("failed", 3.0), ("passed", 2.0)):
        report = pytest.TestReport(
            nodeid="tests/chaos/test_processes.py::test_f01_kill_9[x]",
            location=("", 0, ""),
            keywords={},
            outcome=outcome,
            longrepr=None,
            when="call",
            user_properties=[("takeover seconds", seconds)],
        )
        card.pytest_runtest_logreport(report)
    score = card.scores["F01"]
    assert (score.runs, score.passed, score.worst) == (3, 2, {"takeover seconds": 3.0})
    assert any(line.startswith("FAILED") for line in lines(card.scores))


def test_the_page_has_the_measured_table() -> None:
    text = page.PAGE.read_text()
    assert page.with_table(text, json.loads(page.RESULT.read_text())) == text, "run `python -m tests.chaos.page`"
