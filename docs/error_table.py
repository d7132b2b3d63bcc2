"""Writes the table of error codes of docs/api.md from the exception classes; a test compares the two."""

from pathlib import Path

from service.problems.table import TABLE

PAGE = Path(__file__).with_name("api.md")
BEGIN, END = "<!-- codes: written by `make docs` -->\n", "<!-- end of codes -->"


def error_table() -> str:
    """Markdown table: code, HTTP status and meaning of every error."""
    rows = [f"| `{row.code}` | {row.status or '–'} | {row.meaning} |" for row in TABLE]
    return "\n".join(["| code | status | when |", "|---|---|---|", *rows]) + "\n"


def with_table(page: str) -> str:
    """The page with its table of codes replaced by the one that the classes give now."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} has no section of codes")
    return before + BEGIN + error_table() + end + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
