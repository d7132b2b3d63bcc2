"""Measures what an effort takes here: teachers of the catalogue with random weights, from the file to the student.

python -m benchmarks.planning.effort_time [lenet5:1x32x32 resnet20:3x32x32 ...] [--effort quick] [--threads 2]

Prints for each teacher the seconds on the nominal machine, the wall-clock seconds and the CPU seconds of the run. On a
machine that does other work, CPU seconds divided by the threads are a lower bound of what an idle machine takes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file

from benchmarks.hardware import describe_hardware, peak_memory_bytes
from benchmarks.pair import RESULTS
from dfkd_core.architectures import describe
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.inspection.resolve import resolve
from dfkd_core.inspection.run_facts import run_facts
from dfkd_core.pipeline import compress
from dfkd_core.planning.nominal import NOMINAL
from dfkd_core.planning.speed import seconds_of, seconds_of_phase
from dfkd_core.planning.work import work_of
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec, Effort
from dfkd_core.students.build import build_network

USUAL = ("lenet5:1x32x32", "resnet20:3x32x32", "mobilenetv2:3x48x48")


def measure(architecture: str, shape: list[int], *, effort: str, threads: int, changes: list[str]) -> dict[str, Any]:
    """Run one job, and return its numbers with the predicted and the measured seconds."""
    description = describe(architecture, input_shape=shape, num_classes=10)
    network = build_network(description, generator=torch.Generator().manual_seed(0))
    document: dict[str, Any] = {
        "teacher": {"architecture": architecture, "input": {"shape": shape}},
        "student": {"architecture": "teacher", "width": 0.5},
        "distillation": {"budget": {"effort": effort}},
    }
    overrides.apply(document, changes)
    spec = DistillSpec.model_validate(document)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "teacher.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
        inspection, _ = inspect_with_input_space(file, spec.teacher)
        resolved, student, _ = resolve(spec, inspection)
        work = work_of(resolved.distillation, run_facts(resolved, inspection, student))
        begun, cpu_begun = time.perf_counter(), time.process_time()
        work_space = Path(directory) / "work"
        done = compress(
            file, resolved, workspace=work_space, threads=threads, device="cpu", on_step=lambda _update: False
        )
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
    return {
        "teacher": f"{architecture}:{'x'.join(map(str, shape))}",
        "effort": effort,
        "steps": resolved.distillation.budget.steps,
        "nominal_seconds": seconds_of(work, NOMINAL),
        "nominal_phases": {each.phase: round(seconds_of_phase(each, work, NOMINAL), 1) for each in work.phases},
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "durations": done.report.durations,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="*", default=USUAL, help="ARCHITECTURE:CxHxW of the catalogue")
    parser.add_argument("--effort", choices=get_args(Effort), default="quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--output", type=Path, default=RESULTS / "effort_time.json")
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    runs = []
    for teacher in arguments.teachers:
        architecture, _, shape = teacher.partition(":")
        sides = [int(side) for side in shape.split("x")]
        run = measure(architecture, sides, effort=arguments.effort, threads=arguments.threads, changes=arguments.set)
        runs.append(run)
        print(json.dumps(run), flush=True)
    record = {"hardware": {**describe_hardware(), "threads": arguments.threads}, "runs": runs}
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
