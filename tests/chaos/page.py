"""`python -m tests.chaos.page`: writes the table of docs/reliability.md from benchmarks/results/chaos.json."""

import json
from pathlib import Path
from typing import Any

from tests.chaos.table import TABLE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RESULT = ROOT / "benchmarks" / "results" / "chaos.json"
BEGIN, END = "<!-- results: written by `python -m tests.chaos.page` -->\n", "<!-- end of results -->"


def table(result: dict[str, Any]) -> str:
    """The measurements, in Markdown."""
    hardware, versions = result["hardware"], result["versions"]
    runs = sum(row["runs"] for row in result["rows"].values())
    passed = sum(row["passed"] for row in result["rows"].values())
    written = [
        f"{passed} of {runs} runs passed on {result['date']}, in {result['seconds'] / 60:.0f} minutes (parts added up) "
        f"on {hardware['cores_visible']} cores of a machine that did other work besides ({hardware['cpu']}, "
        f"{hardware['memory_gib']} GiB; Python {hardware['python']}, {versions['postgresql']}, "
        f"Redis {versions['redis-server'].split('v=')[-1].split()[0]}, torch {versions['torch']}, Celery "
        f"{versions['celery']}; seed {result['seed']}).",
        "",
        "| row | fault | planned | run | passed | worst |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        worst = ", ".join(f"{figure} {value:.3g}" for figure, value in row["worst"].items())
        written.append(
            f"| {name} | {TABLE[name].fault} | {row['planned']} | {row['runs']} | {row['passed']} | {worst} |"
        )
    if result["not_run"]:
        written += ["", "Not run:", "", *(f"- {name}: {why}." for name, why in result["not_run"].items())]
    return "\n".join(["", *written, ""])


def with_table(page: str, result: dict[str, Any]) -> str:
    """The page with the table in its place."""
    head, _, rest = page.partition(BEGIN)
    return head + BEGIN + table(result) + "\n" + END + rest.partition(END)[2]


def write() -> None:
    """Bring the page up to date."""
    PAGE.write_text(with_table(PAGE.read_text(), json.loads(RESULT.read_text())))


if __name__ == "__main__":
    write()
