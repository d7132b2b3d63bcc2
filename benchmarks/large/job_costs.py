"""Time and peak memory of jobs with large teachers: ResNet-18 and ResNet-50 at 224 × 224, with random weights.

    python -m benchmarks.large.job_costs resnet18 --set distillation.budget.effort=quick
    python -m benchmarks.large.job_costs resnet50 --seconds 600 --kill-after 60

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

from benchmarks.large.imagenet_resnets import MEAN, SIDE, STD, write_teacher
from benchmarks.large.measured_runner import Runner
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.inspection.job_facts import job_facts
from dfkd_core.inspection.resolve import resolve
from dfkd_core.planning.memory import memory_need
from dfkd_core.planning.reference import REFERENCE
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec

DEPTHS = {"resnet18": 18, "resnet50": 50}


def spec_of(settings: list[str], teacher: Path) -> tuple[DistillSpec, int]:
    """Return the spec of a student of half the width as the service resolves it, and the planned bytes of memory.

    `settings` are those of `dfkd submit --set`.
    """
    document: dict[str, Any] = {
        "teacher": {"input": {"shape": [3, SIDE, SIDE], "mean": list(MEAN), "std": list(STD)}},
        "student": {"architecture": "teacher", "width": 0.5},
    }
    overrides.apply(document, settings)
    spec = DistillSpec.model_validate(document)
    inspection, _ = inspect_with_input_space(teacher, spec.teacher)
    resolved, student, _ = resolve(spec, inspection)
    facts = job_facts(resolved, inspection, student)
    assert facts is not None  # these teachers are large, and their files say everything
    return resolved, memory_need(resolved.distillation, facts, REFERENCE).total


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
        spec, planned = spec_of(options.set, teacher)
        print(spec.distillation.model_dump_json(include={"method", "budget", "compute"}))
        print(f"planned peak {planned / 1e9:.2f} GB")
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
