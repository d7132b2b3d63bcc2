"""What `make door` prints: row, input, answer, verdict and seconds of everything that was sent."""

import time
from typing import Any

import pytest

from tests.door.table import TABLE


class Scorecard:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.others: dict[str, str] = {}  # tests that are not about a row → verdict
        self.started_at = time.time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Every test that was run, or could not be."""
        if report.when != "call" and not report.failed and not report.skipped:
            return
        told = dict(report.user_properties)
        if "row" in told:
            self.answers.append(
                {
                    "row": told["row"],
                    "what": told["what"],
                    "answer": told.get("answer", "no answer"),
                    "verdict": report.outcome,
                    "seconds": round(float(str(told.get("seconds", 0.0))), 3),
                }
            )
        elif report.when == "call" or not report.passed:
            self.others[report.nodeid.rpartition("/")[2]] = report.outcome

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The table."""
        terminalreporter.section("bad inputs")
        for line in lines(self.result()):
            terminalreporter.write_line(line)

    def result(self) -> dict[str, Any]:
        """Everything, for the file."""
        from benchmarks.hardware import describe_hardware

        order = list(TABLE)
        return {
            "date": time.strftime("%Y-%m-%d", time.gmtime(self.started_at)),
            "seconds": round(time.time() - self.started_at),
            "hardware": describe_hardware(),
            "answers": sorted(self.answers, key=lambda answer: order.index(answer["row"])),
            "others": dict(sorted(self.others.items())),
        }


def lines(result: dict[str, Any]) -> list[str]:
    """The table, as text."""
    answers = result["answers"]
    written = [f"{'row':6} {'input':58} {'answer':30} {'verdict':8} seconds"]
    written += [
        f"{row:6} {what[:58]:58} {answer[:30]:30} {verdict:8} {seconds:.3f}"
        for row, what, answer, verdict, seconds in (found.values() for found in answers)
    ]
    sent = {found["row"] for found in answers}
    for name, row in TABLE.items():
        if name not in sent:
            written.append(f"{name:6} {row.sent[:58]:58} {unsent(name)}")
    written += [f"{verdict:8} {name}" for name, verdict in result["others"].items()]
    passed = sum(found["verdict"] == "passed" for found in answers)
    return [*written, f"{passed} of {len(answers)} inputs of {len(sent)} rows were answered as the table says"]


def unsent(name: str) -> str:
    """Why a row has no answer."""
    row = TABLE[name]
    if row.elsewhere:
        return f"tested by {', '.join(row.elsewhere)}"
    return row.excused or "not sent yet"
