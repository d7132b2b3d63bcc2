r"""LeNet-5 to half LeNet-5 on MNIST, without data: how good the published student is, and how steadily it got there.

    python -m benchmarks.mnist_lenet                       seeds 0, 1, 2 with the menu's defaults
    python -m benchmarks.mnist_lenet --threads 1 --set procedural.share=0 --set method_options.latent_dim=1024 \
        --set training.fresh_batches=8 --output benchmarks/results/mnist_lenet_without_procedural.json

The teacher is trained with real data (benchmarks/teachers.py). The distillation gets the teacher alone; real test
images are only counted beside it, through the `measure` callback. Each seed runs in a fresh process. Images are padded
from 28 to 32 pixels; published figures (DAFL 98.2, DFAD 98.3, with other teachers) were made with resized ones.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.datasets import load_images
from benchmarks.hardware import describe_hardware, peak_memory_bytes
from benchmarks.metrics import curve_metrics, mean_and_std, rank_correlation
from benchmarks.teachers import accuracy, load_demonstration_teacher, predict
from dfkd_core.build import build_network
from dfkd_core.config import DistillConfig
from dfkd_core.distill import distill
from dfkd_core.process import ensure_tuned
from dfkd_core.streams import Streams
from dfkd_core.students import describe

TEACHER = "mnist-lenet5"
RESULTS = Path(__file__).resolve().parent / "results"


def config_of(seed: int, changes: list[str]) -> DistillConfig:
    """The menu's defaults with `KEY=VALUE` changes by dotted path."""
    values: dict[str, Any] = {"seed": seed}
    for change in changes:
        path, _, text = change.partition("=")
        *parents, last = path.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
    return DistillConfig.model_validate(values)


def measure_seed(seed: int, changes: list[str]) -> dict[str, Any]:
    """One distillation, its accuracy curve on the real test set, and what it cost."""
    config = config_of(seed, changes)
    teacher, test = load_demonstration_teacher(TEACHER), load_images("mnist", "test")
    teacher_classes = predict(teacher, test.images)
    draws = Streams(seed)["student-weights"]  # as the pipeline draws them
    student = build_network(describe("lenet5_half", input_shape=(1, 32, 32), num_classes=10), generator=draws)
    curve: list[dict[str, float]] = []
    measuring_seconds = 0.0

    def measure(step: int, students: Any) -> None:
        nonlocal measuring_seconds
        started = time.perf_counter()
        point = {name: accuracy(network.eval(), test) for name, network in students.items()}
        curve.append({"step": step, "seconds": started - begun - measuring_seconds, **point})
        measuring_seconds += time.perf_counter() - started
        print(f"seed {seed}  {curve[-1]['seconds']:6.0f} s  step {step:6d}  {_accuracies(point)}", flush=True)

    begun, cpu_begun = time.perf_counter(), time.process_time()
    distilled = distill(teacher, student, config, on_step=lambda _update: False, measure=measure)
    seconds = time.perf_counter() - begun - measuring_seconds
    agreeing = predict(distilled.student, test.images) == teacher_classes
    audit = distilled.student(distilled.audit.images).argmax(dim=1) == distilled.audit.teacher_logits.argmax(dim=1)
    return {
        "seed": seed,
        "config": config.model_dump(mode="json"),
        "teacher_accuracy": accuracy(teacher, test),
        "published_accuracy": accuracy(distilled.student, test),
        "agreement_real": 100 * float(agreeing.double().mean()),
        "agreement_audit": 100 * float(audit.double().mean()),
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu_begun,
        "peak_memory_bytes": peak_memory_bytes(),
        "memory_bytes": distilled.memory_bytes,
        "student_updates": distilled.student_updates,
        "images_synthesized": distilled.images_synthesized,
        "teacher_forwards": distilled.teacher_forwards,
        "rollbacks": distilled.rollbacks,
        "warnings": distilled.warnings,
        "metrics": {name: curve_metrics([point[name] for point in curve]) for name in ("raw", "ema", "published")},
        "probe_rank_correlation": rank_correlation(
            [point["ema"] for point in distilled.curve], [point["ema"] for point in curve]
        ),
        "curve": curve,
        "probe_curve": distilled.curve,
    }


def _accuracies(point: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f} %" for name, value in point.items())


def report(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation over the seeds of everything that is quoted."""
    quoted = {
        "published accuracy, %": [result["published_accuracy"] for result in results],
        "drawdown of the published curve after its first tenth, points": [
            result["metrics"]["published"]["drawdown_after_burn_in"] for result in results
        ],
        "agreement with the teacher on real test images, %": [result["agreement_real"] for result in results],
        "agreement on the synthetic audit set, %": [result["agreement_audit"] for result in results],
        "mean published accuracy over the run, %": [result["metrics"]["published"]["mean"] for result in results],
        "regret of the averaged student, points": [result["metrics"]["ema"]["regret"] for result in results],
        "rank correlation of probe and real accuracy": [result["probe_rank_correlation"] for result in results],
        "seconds": [result["seconds"] for result in results],
        "CPU seconds": [result["cpu_seconds"] for result in results],
        "peak memory, MB": [result["peak_memory_bytes"] / 1e6 for result in results],
        "replay memory, MB": [result["memory_bytes"] / 1e6 for result in results],
    }
    return {
        name: {"mean": mean, "std": std}
        for name, (mean, std) in ((key, mean_and_std(values)) for key, values in quoted.items())
    }


def run_all(arguments: argparse.Namespace) -> None:
    """Every seed in its own process, then the table."""
    hardware = describe_hardware()
    print(json.dumps(hardware))
    load_demonstration_teacher(
        "mnist-lenet5"
    )  # trained here, once, so that no seed's process ever holds the training data
    results = []
    for seed in arguments.seeds:
        single = RESULTS / f".seed-{seed}.json"
        changes = [part for change in arguments.set for part in ("--set", change)]
        command = [sys.executable, "-m", "benchmarks.mnist_lenet", "--single", str(seed), "--to", str(single)]
        subprocess.run([*command, "--threads", str(arguments.threads), *changes], check=True)
        results.append(json.loads(single.read_text()))
        single.unlink()
    summary = report(results)
    for name, value in summary.items():
        print(f"{name}: {value['mean']:.2f} ± {value['std']:.2f} (n = {len(results)}, seeds {arguments.seeds})")
    record = {"hardware": hardware, "seeds": arguments.seeds, "summary": summary, "runs": results}
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {arguments.output}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path in distillation")
    parser.add_argument("--output", type=Path, default=RESULTS / "mnist_lenet.json")
    parser.add_argument("--single", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    RESULTS.mkdir(exist_ok=True)
    if arguments.single is None:
        run_all(arguments)
    else:
        arguments.to.write_text(json.dumps(measure_seed(arguments.single, arguments.set)))


if __name__ == "__main__":
    main()
