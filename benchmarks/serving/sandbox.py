"""Measures what a sandbox costs: time from start to end of a process, without one and in each kind that works here.

    python -m benchmarks.serving.sandbox --runs 50

Two commands are timed: an interpreter that does nothing, for the cost of the sandbox itself, and the inspection of a
small teacher.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.hardware import describe_hardware
from dfkd_core.errors import SandboxUnavailable
from dfkd_core.inspection.child import inspect_in_child
from dfkd_core.sandbox.detect import find_sandbox
from dfkd_core.sandbox.launch import Sandbox, SandboxKind
from dfkd_core.sandbox.policy import ResourceLimits, SandboxPolicy
from dfkd_core.spec.teacher import TeacherSpec
from tests.e2e.teacher import write_teacher

RESULTS = Path(__file__).resolve().parents[1] / "results"
NOTHING = [sys.executable, "-I", "-S", "-c", "pass"]


def milliseconds(act: Callable[[], object], runs: int) -> dict[str, float]:
    """Mean, standard deviation and median of `runs` runs, after one that is not measured."""
    act()
    taken = []
    for _ in range(runs):
        began_at = time.perf_counter()
        act()
        taken.append(1000 * (time.perf_counter() - began_at))
    return {"mean": statistics.mean(taken), "sd": statistics.stdev(taken), "median": statistics.median(taken)}


def start_nothing(sandbox: Sandbox) -> None:
    """Start one interpreter in a sandbox."""
    process = sandbox.start(NOTHING, SandboxPolicy(limits=ResourceLimits()), directory=Path("/"))
    if process.wait() != 0:
        raise RuntimeError(f"the sandbox ended with {process.returncode}")


def measure(runs: int, teacher: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Kind of sandbox -> command -> milliseconds."""
    found = {"none": {"interpreter": milliseconds(lambda: subprocess.run(NOTHING, check=True), runs)}}
    for kind in (SandboxKind.OFF, SandboxKind.BUBBLEWRAP, SandboxKind.NAMESPACES):
        try:
            sandbox = find_sandbox(kind.value)
        except SandboxUnavailable as error:
            print(f"{kind.value}: {error.reasons}")
            continue
        found[kind.value] = {
            "interpreter": milliseconds(lambda sandbox=sandbox: start_nothing(sandbox), runs),  # type: ignore[misc]
            "inspection": milliseconds(
                lambda kind=kind: inspect_in_child(  # type: ignore[misc]
                    teacher, TeacherSpec(), timeout_seconds=60.0, memory_bytes=2**31, sandbox=kind.value
                ),
                max(5, runs // 5),
            ),
        }
    return found


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as directory:
        found = measure(runs, write_teacher(Path(directory) / "teacher.onnx"))
    for kind, commands in found.items():
        for command, taken in commands.items():
            print(f"{kind:10} {command:11} {taken['mean']:7.1f} ms ± {taken['sd']:.1f} (median {taken['median']:.1f})")
    report = {"hardware": describe_hardware(), "runs": runs, "milliseconds": found}
    (RESULTS / "sandbox.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
