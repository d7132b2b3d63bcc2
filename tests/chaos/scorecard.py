"""The result of `make chaos`: one table for people, one JSON file, and the rows that were not run, with the reason."""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.table import TABLE, chaos_count, chaos_seed
from tests.servers import postgres_binaries, redis_binary

PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg", "fastapi", "uvicorn", "torch")


@dataclass
class Score:
    """What came of one row."""

    runs: int = 0
    passed: int = 0
    worst: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)  # tests
    skipped: set[str] = field(default_factory=set)  # reasons

    def note(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        if report.skipped:
            self.skipped.add(report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr))
        elif report.when == "call" or report.failed:
            self.runs += 1
            self.passed += report.passed
            self.failed += [] if report.passed else [report.nodeid]
            for name, value in report.user_properties:
                if isinstance(value, float):
                    self.worst[name] = max(value, self.worst.get(name, value))


class Scorecard:
    """A plugin of pytest that counts by rows."""

    def __init__(self, path: Path | None, *, update: bool = False) -> None:
        self.scores: dict[str, Score] = {name: Score() for name in TABLE}
        self.started_at = time.time()
        self._path = path
        self._before: dict[str, Any] = json.loads(path.read_text()) if update and path is not None else {}
        self._say: Callable[[str], None] | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Find out where to write."""
        self._say = session.config.get_terminal_writer().line

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Every phase of every test."""
        row = row_of(report.nodeid)
        if row is not None:
            self.scores[row].note(report)
            if report.failed and self._say is not None:  # a long run should not keep it for itself
                self._say(f"\nFAILED {report.nodeid}\n{str(report.longrepr)[-1500:]}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The table, and the file."""
        terminalreporter.section("faults")
        for line in lines(self.scores):
            terminalreporter.write_line(line)
        if self._path is not None:
            self._path.write_text(json.dumps(self.result(), indent=1) + "\n")
            terminalreporter.write_line(f"written to {self._path}")

    def result(self) -> dict[str, Any]:
        """What the file holds."""
        from benchmarks.hardware import describe_hardware

        rows = {**self._before.get("rows", {}), **self._rows()}
        return {
            "date": time.strftime("%Y-%m-%d", time.gmtime(self.started_at)),
            "seconds": round(time.time() - self.started_at) + self._before.get("seconds", 0),
            "seed": chaos_seed(),
            "count": chaos_count(),
            "hardware": describe_hardware(),
            "versions": versions(),
            "rows": {name: rows[name] for name in TABLE if name in rows},
            "not_run": {name: why for name, why in not_run(self.scores).items() if name not in rows},
        }

    def _rows(self) -> dict[str, Any]:
        return {
            name: {
                "fault": TABLE[name].fault,
                "planned": TABLE[name].plan,
                "runs": score.runs,
                "passed": score.passed,
                "failed": score.failed,
                "worst": {figure: round(value, 3) for figure, value in score.worst.items()},
            }
            for name, score in self.scores.items()
            if score.runs
        }


def row_of(nodeid: str) -> str | None:
    """The row of a test: by its name here, by the table elsewhere."""
    name = nodeid.rpartition("::")[2]
    if name.startswith("test_f") and name[6:8].isdigit():
        return name[5:8].upper()
    return next((row.name for row in TABLE.values() if any(nodeid.startswith(path) for path in row.elsewhere)), None)


def not_run(scores: Mapping[str, Score]) -> dict[str, str]:
    """Rows that were not run, and why."""
    skipped = {name: "; ".join(sorted(score.skipped)) for name, score in scores.items() if not score.runs}
    return {name: reason or "not selected" for name, reason in skipped.items()}


def lines(scores: Mapping[str, Score]) -> list[str]:
    """The table, as text."""
    written = [f"{'row':4} {'runs':>5} {'passed':>6}  {'fault':58} worst"]
    for name, score in scores.items():
        if score.runs:
            worst = ", ".join(f"{figure} {value:.3g}" for figure, value in score.worst.items())
            written.append(f"{name:4} {score.runs:5} {score.passed:6}  {TABLE[name].fault:58} {worst}")
    written += [f"{name:4} not run: {TABLE[name].fault} ({why})" for name, why in not_run(scores).items()]
    written += [f"FAILED {nodeid}" for score in scores.values() for nodeid in score.failed]
    return written


def versions() -> dict[str, str]:
    """Of what the faults were injected into."""
    found = {name: version(name) for name in PACKAGES}
    found["kernel"] = platform.release()
    found["redis-server"] = _said(redis_binary())
    found["postgresql"] = _said(str(postgres_binaries(Path("/nonexistent"), None) / "postgres"))
    return found


def _said(command: str) -> str:
    answer = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.strip()
