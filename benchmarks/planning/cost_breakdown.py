"""Measures how a run's time is divided among the parts of the loop, for each method.

python -m benchmarks.planning.cost_breakdown [--teacher mnist-lenet5] [--student lenet5_half] [--methods pre_dfkd ...]

Every method runs with its default preset for some student updates under Python's profiler; a part is the cumulative
time of one function of the loop. A part that is contained in another one is indented.
"""

import argparse
import cProfile
import inspect
import json
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.hardware import describe_hardware
from benchmarks.pair import RESULTS, Pair
from dfkd_core.images import augment
from dfkd_core.loop import distill as distill_
from dfkd_core.loop import image_sources
from dfkd_core.loop import round as round_
from dfkd_core.loop import student as student_
from dfkd_core.options.registry import MethodName
from dfkd_core.sandbox.process_tuning import ensure_tuned

PARTS: dict[str, Callable[..., Any]] = {
    "procedural images": round_._draw_procedural,
    "synthesizer learns": round_._train_synthesizer,
    "fresh images": round_._draw_fresh,
    "replay": round_._draw_remembered,
    "student learns": round_._teach_student,
    "  augmentation": augment.augment,
    "  student batch put together": image_sources.ImageSources.student_batch,
    "  average of the student": student_.AveragedStudent.update,
    "memory learns": round_._update_memory,
    "probe and publishing": distill_._evaluate,
}


def profile_method(method: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds by part, and in total."""
    steps = f"distillation.budget.steps={arguments.steps}"
    pair = Pair(arguments.teacher, arguments.student, [f"distillation.method={method}", *arguments.set, steps])
    teacher = pair.load()
    config, student = pair.resolved(teacher, 0).distillation, pair.student_of(teacher, 0)
    profiler = cProfile.Profile()
    started = time.perf_counter()
    profiler.enable()
    distill_.distill(teacher, student.network, config, on_step=lambda _update: False)
    profiler.disable()
    return {"all": time.perf_counter() - started, **_parts(profiler)}


def _parts(profiler: cProfile.Profile) -> dict[str, float]:
    statistics: Any = pstats.Stats(profiler)
    found = {(file, line): cumulative for (file, line, _name), (_, _, _, cumulative, _) in statistics.stats.items()}
    return {part: found.get(_place(function), 0.0) for part, function in PARTS.items()}


def _place(function: Callable[..., Any]) -> tuple[str, int]:
    """Return the file and the first line of a function, by which the profiler knows it."""
    code = inspect.unwrap(function).__code__
    return code.co_filename, code.co_firstlineno


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="mnist-lenet5")
    parser.add_argument("--student", default="lenet5_half")
    parser.add_argument("--methods", nargs="+", default=get_args(MethodName))
    parser.add_argument("--steps", type=int, default=400, help="student updates")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--output", type=Path, default=RESULTS / "cost_breakdown.json")
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    record: dict[str, Any] = {"hardware": describe_hardware(), "steps": arguments.steps, "methods": {}}
    for method in arguments.methods:
        seconds = profile_method(method, arguments)
        record["methods"][method] = seconds
        print(f"{method}: {seconds['all']:.0f} s for {arguments.steps} student updates", flush=True)
        for part in PARTS:
            print(f"  {part:30s} {100 * seconds[part] / seconds['all']:5.1f} %", flush=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
