"""Measures what each part of the steadiness gains: one pair, every memory, with and without average, decay and replay.

python -m benchmarks.accuracy.steadiness [--only vae none ...]     results/steadiness.json and docs/steadiness.svg
python -m benchmarks.accuracy.steadiness --set distillation.budget.steps=3000 --output ... --plot ...     a longer run

LeNet-5 to half LeNet-5 on MNIST from random weights, and no procedural images: the generator alone feeds the student,
as in the papers, so that the effects of memory and averaging are visible. Each run has three curves: the student itself
(raw), its running average (ema), and the published student.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch

from benchmarks.pair import RESULTS, Pair, add_arguments, run_pair
from dfkd_core.sandbox.process_tuning import ensure_tuned

TEACHER, STUDENT = "mnist-lenet5", "lenet5_half"
COMMON = [
    "student.init=random",
    "distillation.method=pre_dfkd",  # named, so that no fallback takes over
    "distillation.procedural.share=0",
    "distillation.training.fresh_batches=8",
    "distillation.budget.steps=600",
    "distillation.steadiness.evaluations=30",
]
VARIANTS: dict[str, list[str]] = {
    "vae": [],
    "none": ["distillation.memory=none"],
    "reservoir": ["distillation.memory=reservoir"],
    "ring": ["distillation.memory=ring"],
    "ema": ["distillation.memory=ema"],
    "vae, constant rate": ["distillation.training.decay=none"],
    "none, constant rate": ["distillation.training.decay=none", "distillation.memory=none"],
    "vae, no consolidation": ["distillation.steadiness.consolidation=0"],
}
CURVES = {"raw": "#b0b0b0", "ema": "#2b7bba", "published": "#c0392b"}
PLOT = Path(__file__).resolve().parents[2] / "docs" / "steadiness.svg"


def rows(records: dict[str, Any]) -> list[list[str]]:
    """Return the table of docs/measurements.md: one line for each variant and curve."""
    lines = []
    for name, record in records.items():
        for curve in CURVES:
            metrics = [run["metrics"][curve] for run in record["runs"]]
            late = [pstdev(_later_half([point[curve] for point in run["curve"]])) for run in record["runs"]]
            numbers = [
                _text([metric["final"] for metric in metrics]),
                _text([metric["drawdown_after_burn_in"] for metric in metrics]),
                _text(late),
                _text([metric["regret"] for metric in metrics]),
            ]
            shared = [_text([run["probe_rank_correlation"] for run in record["runs"]])] if curve == "ema" else ["–"]
            lines.append([name, curve, *numbers, *shared])
    return lines


def _later_half(values: list[float]) -> list[float]:
    return values[len(values) // 2 :]


def _text(values: list[float]) -> str:
    deviation = math.sqrt(sum((value - fmean(values)) ** 2 for value in values) / max(1, len(values) - 1))
    return f"{fmean(values):.2f} ± {deviation:.2f}"


def plot(records: dict[str, Any], path: Path) -> None:
    """Accuracy against student updates, mean and deviation over the seeds, one panel for each variant."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "dfkd"  # equal figures give equal files
    from matplotlib import pyplot as plt

    columns = 3
    height = math.ceil(len(records) / columns)
    figure, axes = plt.subplots(height, columns, figsize=(12, 3 * height), sharex=True, sharey=True, squeeze=False)
    for panel, (name, record) in zip(axes.flat, records.items(), strict=False):
        steps = [point["step"] for point in record["runs"][0]["curve"]]
        for curve, colour in CURVES.items():
            values = [[point[curve] for point in run["curve"]] for run in record["runs"]]
            means = [fmean(column) for column in zip(*values, strict=True)]
            spread = [pstdev(column) for column in zip(*values, strict=True)]
            low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
            panel.plot(steps, means, color=colour, label=curve, linewidth=1.2)
            panel.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.set_title(name, fontsize=10)
        panel.set_ylim(60, 100)
        panel.grid(alpha=0.3)
    for panel in list(axes.flat)[len(records) :]:
        panel.set_axis_off()
    axes[0][0].legend(loc="lower right", fontsize=8)
    figure.supxlabel("student updates")
    figure.supylabel("accuracy on real test images, %")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=RESULTS / "steadiness.json")
    parser.add_argument("--plot", type=Path, default=PLOT)
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    records = {}
    for name in arguments.only:
        print(f"== {name}")
        pair = Pair(TEACHER, STUDENT, [*COMMON, *VARIANTS[name], *arguments.set])
        single = arguments.output.with_suffix(".part.json")
        records[name] = run_pair(
            pair, arguments.seeds, threads=arguments.threads, output=single, at_once=arguments.at_once
        )
        single.unlink()
    for row in rows(records):
        print("| " + " | ".join(row) + " |")
    arguments.output.write_text(json.dumps(records, indent=1) + "\n")
    plot(records, arguments.plot)


if __name__ == "__main__":
    main()
