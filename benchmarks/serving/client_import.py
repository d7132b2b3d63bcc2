"""Measures what `import dfkd; dfkd.Client` costs: CPU seconds of fresh interpreters, and the modules that they load.

python -m benchmarks.serving.client_import [--count 20]

The CPU time of an interpreter that only starts and ends is measured beside it, and is part of the figure. Bytecode is
compiled before the first measurement, as it is after an installation.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"
BAR_SECONDS = 0.5
PROGRAMS = {
    "interpreter": "",
    "client": "import dfkd; dfkd.Client",
    "command line": "import dfkd.cli.main",
}
LIBRARIES = ("httpx", "pydantic", "typer", "rich")


def cpu_seconds(program: str) -> float:
    """User and system time of one fresh interpreter that runs `program`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def loaded_rooms(program: str) -> dict[str, int]:
    """Our modules that a fresh interpreter loads for `program`, by room."""
    count = "import collections, json, sys; rooms = ('dfkd', 'dfkd_core', 'jobs', 'service', 'worker'); "
    count += "names = (name.partition('.')[0] for name in sys.modules); "
    count += "print(json.dumps(collections.Counter(name for name in names if name in rooms)))"
    answer = subprocess.run([sys.executable, "-c", f"{program}\n{count}"], check=True, capture_output=True, text=True)
    return dict(json.loads(answer.stdout))


def measure(program: str, count: int) -> dict[str, object]:
    """Mean, standard deviation and extremes of `count` fresh interpreters, after one that is not counted."""
    cpu_seconds(program)
    found = [cpu_seconds(program) for _ in range(count)]
    return {
        "n": count,
        "mean_seconds": round(statistics.mean(found), 4),
        "std_seconds": round(statistics.stdev(found), 4),
        "min_seconds": round(min(found), 4),
        "max_seconds": round(max(found), 4),
        "our_modules": loaded_rooms(program),
    }


def machine() -> dict[str, object]:
    """Where it was measured, without a library that the client does not need."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "cpu": next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        "cores_visible": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def main() -> None:
    """Measure, print, and keep the figures in benchmarks/results/client_import.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=20, help="fresh interpreters for each figure")
    options = parser.parse_args()
    found = {name: measure(program, options.count) for name, program in PROGRAMS.items()}
    record = {"bar_seconds": BAR_SECONDS, "machine": machine(), "measured": found}
    (RESULTS / "client_import.json").write_text(json.dumps(record, indent=2) + "\n")
    for name, figures in found.items():
        print(f"{name:<13} {figures['mean_seconds']} ± {figures['std_seconds']} s of CPU, n = {figures['n']}")


if __name__ == "__main__":
    main()
