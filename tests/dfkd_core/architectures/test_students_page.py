"""docs/students.md lists the architectures of the catalogue."""

from pathlib import Path

from dfkd_core.architectures import ARCHITECTURES
from dfkd_core.architectures.__main__ import page

PAGE = Path(__file__).parents[3] / "docs" / "students.md"


def test_the_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m dfkd_core.architectures > docs/students.md"


def test_the_page_has_every_student_and_its_size() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in ARCHITECTURES)
    assert "21 282 122" in text
    assert "15 738" in text
