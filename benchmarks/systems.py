"""Measures every method on one pair, with the same budget of student updates: accuracy, steadiness, seconds, memory.

python -m benchmarks.systems [--only dafl ...]     writes results/systems.json, prints the table of docs/measurements.md
python -m benchmarks.systems --teacher mnist-resnet14 --student teacher --only ddad ...     another pair

By default LeNet-5 to half LeNet-5 on MNIST, from random weights. Each method has its own default memory, and there are
no procedural images, so that the effect of the method itself is visible.
"""

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.accuracy.steadiness import STUDENT, TEACHER
from benchmarks.metrics import mean_and_std
from benchmarks.pair import RESULTS, Pair, add_arguments, run_pair
from benchmarks.teachers import RECIPES
from dfkd_core.options.registry import MethodName
from dfkd_core.sandbox.process_tuning import ensure_tuned

COMMON = [
    "student.init=random",
    "distillation.procedural.share=0",
    "distillation.budget.steps=600",
    "distillation.steadiness.evaluations=30",
]
NEED_BATCHNORM = ("ddad",)  # the LeNet has none
SYSTEMS = get_args(MethodName)


def row(name: str, record: dict[str, Any]) -> list[str]:
    """Return one line of the table: means and deviations over the seeds."""
    runs = record["runs"]
    curves = [run["metrics"]["published"] for run in runs]
    columns = [
        [run["published_accuracy"] for run in runs],
        [curve["mean"] for curve in curves],
        [curve["std"] for curve in curves],
        [curve["drawdown_after_burn_in"] for curve in curves],
        [run["agreement_real"] for run in runs],
    ]
    seconds, _ = mean_and_std([run["seconds"] for run in runs])
    memory = max(run["memory_bytes"] for run in runs)
    config = runs[0]["config"]
    return [
        name,
        config["memory"],
        *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in map(mean_and_std, columns)),
        f"{seconds:.0f}",
        f"{memory / 1e6:.2f}",
    ]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--teacher", choices=list(RECIPES), default=TEACHER)
    parser.add_argument("--student", default=STUDENT)
    alone = [name for name in SYSTEMS if name not in NEED_BATCHNORM]
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=alone)
    parser.add_argument("--output", type=Path, default=RESULTS / "systems.json")
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    records: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in arguments.only:
        print(f"== {name}", flush=True)
        changes = [*COMMON, f"distillation.method={name}", *arguments.set]
        pair = Pair(arguments.teacher, arguments.student, changes)
        single = arguments.output.with_suffix(".part.json")
        records[name] = run_pair(
            pair, arguments.seeds, threads=arguments.threads, output=single, at_once=arguments.at_once
        )
        single.unlink()
        arguments.output.write_text(json.dumps(records, indent=1) + "\n")
    for name, record in records.items():
        print("| " + " | ".join(row(name, record)) + " |")


if __name__ == "__main__":
    main()
