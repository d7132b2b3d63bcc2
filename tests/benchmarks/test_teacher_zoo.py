"""The matrix of the zoo: what a cell says, and that the page has every net."""

import re
from pathlib import Path

from benchmarks.teacher_zoo import BEGIN, END, PAGE, Cell, run, summary, table
from tests.dfkd_core.zoo import ZOO


def cell(net: str, way: str, verdict: str = "read", **found: float) -> Cell:
    return Cell(net, way, verdict, **{"parity": 1e-7, "gradient": 2e-6, **found})


def test_a_cell_holds_the_larger_error_or_why_there_is_none() -> None:
    cells = [
        cell("a", "x"),
        cell("a", "y", "wrong"),
        cell("b", "x", "teacher-invalid"),
        cell("b", "y", "cannot-export"),
    ]
    rows = table([*cells, cell("c", "x", parity=3e-5)], ["x", "y"]).splitlines()
    assert rows[2:] == ["| a | 2e-06 | **wrong** |", "| b | refused | – |", "| c | 3e-05 |  |"]
    assert summary(cells[2:]).split()[:3] == ["b", "1", "cannot-export,"]


def test_a_run_goes_on_from_its_diary(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    (fresh,) = run(["lenet"], ["legacy"], jobs=1, diary=diary)
    assert fresh.verdict == "read"
    changed = diary.read_text().replace('"read"', '"wrong"')
    diary.write_text(changed)
    assert [found.verdict for found in run(["lenet"], ["legacy"], jobs=1, diary=diary)] == ["wrong"]


def test_the_page_has_every_net_and_no_cell_is_wrong() -> None:
    matrix = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert re.findall(r"^\| (\w+) \|", matrix, flags=re.MULTILINE)[1:] == list(ZOO)
    assert "wrong" not in matrix
