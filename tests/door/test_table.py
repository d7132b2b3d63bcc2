"""No row of the table is forgotten: each is tested here, tested elsewhere, or excused by name."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.door import page
from tests.door.inputs import INPUTS
from tests.door.scorecard import Scorecard, lines
from tests.door.table import PLANNED, TABLE
from tests.door.test_rows import identifier

ROOT = Path(__file__).resolve().parents[2]
HERE = {entry.row for entry in INPUTS}


def test_the_table_has_every_row_of_the_plan() -> None:
    planned = [name for name in TABLE if name.startswith("B-")]
    assert len(planned) == PLANNED
    assert planned == sorted(planned)


def test_every_row_is_tested_or_excused() -> None:
    elsewhere = {row.name for row in TABLE.values() if row.elsewhere}
    excused = {row.name for row in TABLE.values() if row.excused}
    assert HERE | elsewhere | excused == TABLE.keys()
    assert not (HERE | elsewhere) & excused


def test_every_row_has_an_input_that_is_tested_every_day() -> None:
    assert {entry.row for entry in INPUTS if not entry.slow} == HERE


def test_the_inputs_have_names_of_their_own() -> None:
    assert [name for name, count in Counter((entry.row, entry.what) for entry in INPUTS).items() if count > 1] == []
    assert len({identifier(entry) for entry in INPUTS}) > 0.9 * len(INPUTS)


@pytest.mark.parametrize("path", [path for row in TABLE.values() for path in row.elsewhere])
def test_what_is_tested_elsewhere_is_there(path: str) -> None:
    file, _, name = path.partition("::")
    assert f"def {name}" in (ROOT / file).read_text()


def test_the_page_has_the_table_that_was_found() -> None:
    text = page.PAGE.read_text()
    if not page.RESULT.exists():
        assert page.BEGIN + page.END in text, "figures without a run behind them"
        return
    assert page.with_table(text, json.loads(page.RESULT.read_text())) == text, "run `python -m tests.door --update`"


def test_what_was_found_is_what_is_sent_now() -> None:
    expected = {(entry.row, entry.what): entry.expected for entry in INPUTS}
    known = json.loads(page.RESULT.read_text())["answers"] if page.RESULT.exists() else []
    for found in known:
        assert found["answer"] == expected[found["row"], found["what"]]


def test_a_failure_is_named_and_what_is_not_sent_says_why() -> None:
    card = Scorecard()
    told = [("row", "B-017"), ("what", "two specs"), ("answer", "500 internal"), ("seconds", 0.25)]
    card.pytest_runtest_logreport(
        pytest.TestReport(
            "tests/door/test_rows.py::test_row[x]", ("", 0, ""), {}, "failed", None, "call", user_properties=told
        )
    )
    text = "\n".join(lines(card.result()))
    assert "two specs" in text
    assert "500 internal" in text
    assert "0 of 1 inputs" in text
    assert "there are no data sets" in text
