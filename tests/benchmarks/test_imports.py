"""Every benchmark finds the functions that it measures; benchmarks themselves are run by hand."""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPORTERS = "zoo"  # each of its exporters runs in an environment of its own
FILES = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "benchmarks").rglob("*.py"))
BENCHMARKS = sorted(".".join(file.parts) for file in FILES if file.parts[1] != EXPORTERS and file.name != "__init__")
PAGES = [ROOT / "README.md", ROOT / "Makefile", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_imported(name: str) -> None:
    import_module(name)


def test_every_command_of_the_pages_is_a_benchmark() -> None:
    commands = {name for page in PAGES for name in re.findall(r"-m\s+(benchmarks(?:\.\w+)+)", page.read_text("utf-8"))}
    assert len(commands) > 10
    assert [name for name in sorted(commands) if find_spec(name) is None] == []
