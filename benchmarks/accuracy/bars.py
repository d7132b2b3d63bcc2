"""The table of bars: accuracy of students on real test images, for pairs, efforts and seeds, with all defaults.

    python -m benchmarks.accuracy.bars                                       all rows: some sixty hours of one core
    python -m benchmarks.accuracy.bars mnist-lenet --efforts quick --seeds 0 1 2 --threads 1 --at-once 2
    python -m benchmarks.accuracy.bars --upper --efforts standard --seeds 0     real images in place of made ones
    python -m benchmarks.accuracy.bars --table                               only print what was measured

A job begins with an ONNX file and ends with one, as in the service, and runs in the worker's runner; nothing is told of
the pixels. Test images decide nothing. The record is written as each run ends, and the command goes on where it was cut
off, in the middle of a run too. Rows without bars are pairs on which no choice was made.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import torch

from benchmarks.accuracy.bar_rows import ROWS, Row
from benchmarks.datasets import load_images
from benchmarks.hardware import describe_run
from benchmarks.large.pairs import classes_of_file, percent
from benchmarks.large.pairs import run as run_job
from benchmarks.metrics import mean_and_std
from benchmarks.pair import RESULTS
from benchmarks.planning.plan_accuracy import write_record
from benchmarks.teachers import CACHE
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.inspection.resolve import resolve
from dfkd_core.output.provenance import code_facts, spec_facts
from dfkd_core.sandbox.process_tuning import tuned_environment
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec, Effort

OUTPUT = RESULTS / "bars.json"
UPPER = ("distillation.procedural.share=0",)


@dataclass(frozen=True, slots=True)
class Asked:
    """One run of the table."""

    row: str
    effort: str
    seed: int
    upper: bool  # real images in place of made ones
    settings: tuple[str, ...]  # KEY=VALUE, beyond the defaults

    def facts(self) -> dict[str, Any]:
        """Return what tells this run from all others."""
        return {
            "row": self.row,
            "effort": self.effort,
            "seed": self.seed,
            "upper": self.upper,
            "settings": list(self.settings),
        }

    def spec(self, teacher: Path) -> DistillSpec:
        """Return the spec as the service resolves it."""
        document: dict[str, Any] = {
            "student": ROWS[self.row].student,
            "distillation": {"seed": self.seed, "budget": {"effort": self.effort}},
        }
        overrides.apply(document, [*self.settings, *(UPPER if self.upper else ())])
        spec = DistillSpec.model_validate(document)
        found, _ = inspect_with_input_space(teacher, spec.teacher)
        return resolve(spec, found)[0]


def measured(asked: Asked, *, threads: int) -> dict[str, Any]:
    """Run one job, and measure its student on the test images."""
    row = ROWS[asked.row]
    path = row.teacher_file()
    spec = asked.spec(path)
    workspace = CACHE / "bars" / f"{asked.row}-{asked.effort}-{asked.seed}-{spec_facts(asked.facts()).sha256[:12]}"
    if asked.upper:
        spent = with_real_images(row, path, spec, workspace, threads=threads)
    else:
        spent = run_job(path, spec, workspace, threads=threads)
    test = load_images(row.dataset, "test")
    images, labels = test.images.numpy(), test.labels.numpy()
    of_teacher, of_student = (classes_of_file(file, images) for file in (path, workspace / "student.onnx"))
    report = json.loads((workspace / "report.json").read_text())
    shutil.rmtree(workspace)
    return {
        "accuracy": percent(of_student, labels),
        "teacher_accuracy": percent(of_teacher, labels),
        "agreement": percent(of_student, of_teacher),
        "agreement_audit": 100 * report["agreement"]["value"],
        "test_images": len(labels),
        **spent,
        "published_step": report["published_step"],
        "parameters": {"teacher": report["teacher"]["parameters"], "student": report["student"]["parameters"]},
        "precision": report["precision"],
        "durations": report["durations"],
        "warnings": [warning["code"] for warning in report["warnings"]],
        "spec": spec.model_dump(mode="json"),
    }


def with_real_images(row: Row, path: Path, spec: DistillSpec, workspace: Path, *, threads: int) -> dict[str, Any]:
    """Run one job on real images in a process of its own."""
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "spec.json").write_text(spec.model_dump_json())
    begun = time.monotonic()
    command = ["-m", "benchmarks.accuracy.real_images", str(path), str(workspace / "spec.json"), str(workspace)]
    environment = tuned_environment(dict(os.environ), threads=threads)
    subprocess.run([sys.executable, *command, row.dataset, "--threads", str(threads)], check=True, env=environment)
    return {"seconds": time.monotonic() - begun}


class Record:
    """The runs that were measured; each is written as it ends."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self.runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []

    def has(self, asked: Asked) -> bool:
        """Return whether this run was measured, by whatever code."""
        return any(asked.facts().items() <= run.items() for run in self.runs)

    def add(self, asked: Asked, found: dict[str, Any]) -> None:
        """Keep a run in place of an earlier one."""
        with self._lock:
            others = [run for run in self.runs if not asked.facts().items() <= run.items()]
            self.runs = [*others, {**asked.facts(), **found}]
            write_record(self._path, {"runs": self.runs})

    def accuracies(self, row: str, effort: str, *, upper: bool) -> list[float]:
        """Return the accuracies of a cell of the table, all with the defaults."""
        wanted = {"row": row, "effort": effort, "upper": upper, "settings": []}
        return [run["accuracy"] for run in self.runs if wanted.items() <= run.items()]


def table(record: Record, efforts: Sequence[str]) -> str:
    """Return the table in Markdown: mean ± standard deviation over n seeds, the bar in brackets."""
    heads = ["pair", "teacher", *efforts, "real images, standard"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for name, row in ROWS.items():
        teachers = [run["teacher_accuracy"] for run in record.runs if run["row"] == name]
        cells = [_cell(record.accuracies(name, effort, upper=False), row.bars.get(effort)) for effort in efforts]
        label = name if row.chosen_on else f"{name} (no choice made on it)"
        teacher = f"{fmean(teachers):.2f}" if teachers else "–"
        cells += [_cell(record.accuracies(name, "standard", upper=True), None)]
        lines.append(_line([label, teacher, *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(accuracies: list[float], bar: float | None) -> str:
    wanted = f" ({bar:g})" if bar is not None else ""
    if not accuracies:
        return f"–{wanted}"
    mean, deviation = mean_and_std(accuracies)
    shown = f"{mean:.2f} ± {deviation:.2f}, n = {len(accuracies)}" if len(accuracies) > 1 else f"{mean:.2f}, n = 1"
    return f"{shown}{wanted}"


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}; all by default")
    parser.add_argument("--efforts", nargs="+", choices=get_args(Effort), default=list(get_args(Effort)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2, help="of each run")
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--upper", action="store_true", help="real images in place of made ones")
    parser.add_argument("--again", action="store_true", help="measure again what stands in the record")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record = Record(options.output)
    wanted = [
        Asked(row, effort, seed, options.upper, tuple(options.set))
        for effort in options.efforts
        for row in options.rows or ROWS
        for seed in options.seeds
    ]
    missing = [] if options.table else [asked for asked in wanted if options.again or not record.has(asked)]
    for row in dict.fromkeys(asked.row for asked in missing):
        ROWS[row].teacher_file()  # trained here, so that no job's process ever sees training images
    origin = {"code_sha256": code_facts().sha256, "at_once": options.at_once, **describe_run(options.threads)}

    def measure(asked: Asked) -> None:
        found = measured(asked, threads=options.threads)
        record.add(asked, {**found, **origin})
        print(
            f"{asked.row} {asked.effort} seed {asked.seed}: {found['accuracy']} %, {found['seconds']:.0f} s", flush=True
        )

    with ThreadPoolExecutor(options.at_once) as pool:
        for _ in pool.map(measure, missing):
            pass
    print(table(record, options.efforts))


if __name__ == "__main__":
    main()
