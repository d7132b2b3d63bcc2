"""Time and peak memory of jobs with large teachers: ResNet-18 and ResNet-50 at 224 × 224, with random weights.

    python -m benchmarks.large_teachers resnet18 --set distillation.budget.effort=quick
    python -m benchmarks.large_teachers resnet50 --seconds 600 --kill-after 60

The job runs in the worker's runner, in a process of its own. The peak is the resident memory of that process and its
children, sampled five times a second. With `--seconds` the run is stopped then. With `--kill-after` it is killed with
SIGKILL after so many seconds and resumed from its last checkpoint. A line tells every phase that is reached.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.imagenet_resnets import MEAN, SIDE, STD, write_teacher
from benchmarks.measured_runner import Runner
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.inspection.resolve import resolve
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec

DEPTHS = {"resnet18": 18, "resnet50": 50}


def spec_of(settings: list[str], teacher: Path) -> DistillSpec:
    """Return the spec of a student of half the width as the service resolves it, with settings as for `dfkd submit`."""
    document: dict[str, Any] = {
        "teacher": {"input": {"shape": [3, SIDE, SIDE], "mean": list(MEAN), "std": list(STD)}},
        "student": {"architecture": "teacher", "width": 0.5},
    }
    overrides.apply(document, settings)
    spec = DistillSpec.model_validate(document)
    return resolve(spec, inspect_file(teacher, spec.teacher))[0]


def main() -> None:
    """Run one job and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", choices=sorted(DEPTHS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when the run is ended")
    parser.add_argument("--kill-after", type=float, help="when the first process is killed; the job is then resumed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-teachers-") as directory:
        teacher = Path(directory) / "teacher.onnx"
        write_teacher(DEPTHS[options.teacher], teacher)
        spec = spec_of(options.set, teacher)
        print(spec.distillation.model_dump_json(include={"method", "budget", "compute"}))
        started, peak, checkpoint = time.monotonic(), 0, None
        ends = [options.kill_after] * (options.kill_after is not None) + [options.seconds]
        for number, end in enumerate(ends):
            runner = Runner(teacher, spec, Path(directory) / str(number), checkpoint, threads=torch.get_num_threads())
            runner.watch(until=lambda end=end: time.monotonic() - started > end, started=started)
            peak, checkpoint = max(peak, runner.peak_bytes), runner.checkpoint
            print(f"process {number}: {runner.last.get('type')} {runner.last.get('code', '')}, checkpoint {checkpoint}")
        print(f"{options.teacher}: {time.monotonic() - started:.0f} s, peak {peak / 1e9:.2f} GB, threads {_threads()}")
        report = Path(directory) / str(len(ends) - 1) / "report.json"
        if report.exists():
            found = json.loads(report.read_text())
            print(f"agreement {found['agreement']['value']:.4f}, warnings {[one['code'] for one in found['warnings']]}")


def _threads() -> str:
    return f"{torch.get_num_threads()} of {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
