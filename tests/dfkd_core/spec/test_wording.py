"""A command never shows a hint about a request, and the API never one that only the command line understands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfkd_core.spec.wording import for_command_line

ROOT = Path(__file__).resolve().parents[3]
LISTING = re.compile(r"`dfkd (students|inspect|show|list)|--(set|shape|mean|std|student|architecture)\b")


def hints() -> Iterator[tuple[str, str]]:
    """Every text that is given as a hint in the code of the science, the ledger and the service, with its place."""
    for folder in ("dfkd_core", "jobs", "service", "worker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for found in ast.walk(ast.parse(path.read_text())):
                if isinstance(found, ast.keyword) and found.arg == "hint":
                    texts = [one.value for one in ast.walk(found.value) if isinstance(one, ast.Constant)]
                    yield f"{path.relative_to(ROOT)}:{found.value.lineno}", "".join(map(str, texts))


def test_a_command_says_options_and_commands_instead_of_fields_and_requests() -> None:
    said = for_command_line("Give teacher.input.shape [channels, height, width].")
    assert said == "Give --shape channels,height,width."
    assert for_command_line("Give teacher.input.mean and teacher.input.std.") == "Give --mean and --std."
    assert "`dfkd students` lists" in for_command_line("Choose another; GET /menu lists the students.")
    assert for_command_line("Known are a, b. GET /menu has the JSON Schema of the spec.") == "Known are a, b."
    assert for_command_line("") == ""


def test_no_hint_leads_a_command_to_a_request() -> None:
    assert len(list(hints())) > 60
    assert [place for place, hint in hints() if re.search(r"\b(GET|POST) /", for_command_line(hint))] == []


@pytest.mark.parametrize("exempt", ["dfkd_core/exporting/"])  # its hints are for `dfkd export-teacher` alone
def test_no_hint_of_the_api_speaks_of_options_of_commands(exempt: str) -> None:
    assert [place for place, hint in hints() if LISTING.search(hint) and not place.startswith(exempt)] == []
