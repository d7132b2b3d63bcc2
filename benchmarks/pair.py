r"""Distils one teacher into one student without data and measures the published student and the curve that led to it.

    python -m benchmarks.pair mnist-lenet5 lenet5_half                    seeds 0, 1, 2 with the menu's defaults
    python -m benchmarks.pair cifar10-resnet20 teacher --set student.width=0.5 --set distillation.seed=7
    python -m benchmarks.pair mnist-lenet5 lenet5_half --set student.init=random --set distillation.method=dafl

The teacher is trained with real data (benchmarks/teachers.py). The distillation gets only the teacher; real test images
are used only by the `measure` callback. Each seed runs in a fresh process. `--folded` first folds the teacher's
BatchNorm statistics away, as PyTorch's default exporter does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.datasets import load_images
from benchmarks.hardware import describe_hardware, peak_memory_bytes
from benchmarks.metrics import curve_metrics, mean_and_std, rank_correlation
from benchmarks.teachers import RECIPES, accuracy, load_demonstration_teacher, predict
from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.images.student_answers import answers
from dfkd_core.input_estimate import InputEstimate
from dfkd_core.inspection import resolve
from dfkd_core.inspection.input_space.estimate import estimate_input
from dfkd_core.inspection.inspection import BatchNormFacts, Inspection
from dfkd_core.loop.distill import distill
from dfkd_core.loop.probe import agrees
from dfkd_core.narrowing.catalogue import plan_of
from dfkd_core.narrowing.choice import Score, magnitude
from dfkd_core.networks.hooks import layers_in_order
from dfkd_core.networks.teacher import Teacher
from dfkd_core.rng import Streams
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec
from dfkd_core.students.narrowing import count_parameters, original_of
from dfkd_core.students.prepare import Student, prepare_student

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Pair:
    """A teacher, a student, and the settings that differ from the defaults."""

    teacher: str  # of benchmarks/teachers.py
    student: str
    changes: list[str] = field(default_factory=list)  # KEY=VALUE, dotted paths into the spec
    folded: bool = False

    def spec(self, seed: int) -> DistillSpec:
        """Return the complete spec."""
        document: dict[str, Any] = {"student": {"architecture": self.student}, "distillation": {"seed": seed}}
        overrides.apply(document, self.changes)
        return DistillSpec.model_validate(document)

    def resolved(self, teacher: Teacher, seed: int) -> DistillSpec:
        """Return the spec as the service resolves it when it accepts a job."""
        return self._at_the_door(teacher, seed)[0]

    def student_of(self, teacher: Teacher, seed: int, *, score: Score = magnitude) -> Student:
        """Return the student before its first step; `score` says which of the teacher's channels are the best."""
        spec, description = self._at_the_door(teacher, seed)
        return prepare_student(
            spec.student,
            description,
            teacher,
            replace(original_of(teacher.network), score=score),
            teacher_parameters=count_parameters(teacher.network),
            normalised=spec.distillation.training.renormalise,
            streams=Streams(seed),
        )

    def _at_the_door(self, teacher: Teacher, seed: int) -> tuple[DistillSpec, NetworkDescription | None]:
        document = self.spec(seed).model_dump(mode="json", exclude_unset=True)
        architecture = RECIPES[self.teacher].architecture
        document["teacher"] = {"architecture": architecture}
        spec, description, _ = resolve.resolve(DistillSpec.model_validate(document), facts_of(teacher, architecture))
        return spec, description

    def load(self) -> Teacher:
        """Return the teacher, with or without its statistics."""
        teacher = load_demonstration_teacher(self.teacher)
        return fold(teacher) if self.folded else teacher


def fold(teacher: Teacher) -> Teacher:
    """Return a network that computes the same with every BatchNorm folded into the convolution before it."""
    network = teacher.network
    order = list(layers_in_order(network, torch.zeros(1, *teacher.input_space.shape)).items())
    for (name, convolution), (norm_name, norm) in pairwise(order):
        if isinstance(norm, nn.BatchNorm2d):
            assert isinstance(convolution, nn.Conv2d)
            network.set_submodule(name, nn.utils.fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(norm_name, nn.Identity())
    return Teacher(network, teacher.input_space, num_classes=teacher.num_classes, classifier=teacher.classifier)


def facts_of(teacher: Teacher, architecture: str) -> Inspection:
    """Return the inspection that the teacher's file would have had."""
    shape = teacher.input_space.shape
    description = describe(architecture, input_shape=shape, num_classes=teacher.num_classes)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in teacher.modules())
    return Inspection(
        format="safetensors",
        parameters=count_parameters(teacher.network),
        macs=description.macs,
        activation_bytes=4 * description.activations,
        input_shape=list(shape),
        num_classes=teacher.num_classes,
        input_space=_input_estimate(teacher, description) if norms else None,
        batchnorm=BatchNormFacts(status="present" if norms else "none", present=norms),
        offers=sorted(teacher.offers),
    )


def _input_estimate(teacher: Teacher, description: NetworkDescription) -> InputEstimate:
    """Return what a file of the teacher would show of its pixels; nothing is told."""
    tensors = {name: tensor.numpy() for name, tensor in teacher.network.state_dict().items()}
    return estimate_input(plan_of(description, tensors))


def measure_seed(pair: Pair, seed: int, *, score: Score = magnitude) -> dict[str, Any]:
    """Run one distillation; return its accuracy curve on the real test set and its cost."""
    teacher, test = pair.load(), load_images(RECIPES[pair.teacher].dataset, "test")
    teacher_classes = predict(teacher, test.images)
    config = pair.resolved(teacher, seed).distillation
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
    student = pair.student_of(teacher, seed, score=score)
    distilled = distill(teacher, student.network, config, on_step=lambda _update: False, measure=measure)
    seconds = time.perf_counter() - begun - measuring_seconds
    agreeing = predict(distilled.student, test.images) == teacher_classes
    audit = agrees(answers(distilled.student, distilled.audit), distilled.audit)
    return {
        "seed": seed,
        "config": config.model_dump(mode="json"),
        "init": student.init,
        "parameters": {"teacher": count_parameters(teacher.network), "student": student.parameters},
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


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation over the seeds of every quoted figure."""
    published = [result["metrics"]["published"] for result in results]
    quoted = {
        "published accuracy, %": [result["published_accuracy"] for result in results],
        "drawdown of the published curve after its first tenth, points": [
            curve["drawdown_after_burn_in"] for curve in published
        ],
        "agreement with the teacher on real test images, %": [result["agreement_real"] for result in results],
        "agreement on the synthetic audit set, %": [result["agreement_audit"] for result in results],
        "mean published accuracy over the run, %": [curve["mean"] for curve in published],
        "deviation of the published accuracy over the run, points": [curve["std"] for curve in published],
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


def run_pair(pair: Pair, seeds: list[int], *, threads: int, output: Path, at_once: int = 1) -> dict[str, Any]:
    """Run every seed in a process of its own, `at_once` at a time; print the table and write the record to `output`."""
    hardware = {**describe_hardware(), "threads": threads}
    print(json.dumps(hardware))
    pair.load()  # trains a missing teacher once, here, so that no seed's process ever holds the training data
    with ThreadPoolExecutor(at_once) as processes:
        results = list(processes.map(lambda seed: _in_a_process(pair, seed, threads), seeds))
    summary = summarise(results)
    print(f"teacher: {results[0]['teacher_accuracy']:.2f} %, student starts from: {results[0]['init']}")
    for name, value in summary.items():
        print(f"{name}: {value['mean']:.2f} ± {value['std']:.2f} (n = {len(results)}, seeds {seeds})")
    asked = {"teacher": pair.teacher, "student": pair.student, "changes": pair.changes, "folded": pair.folded}
    record = {"pair": asked, "hardware": hardware, "seeds": seeds, "summary": summary, "runs": results}
    RESULTS.mkdir(exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {output}")
    return record


def _in_a_process(pair: Pair, seed: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        single = Path(directory) / "result.json"
        command = [sys.executable, "-m", "benchmarks.pair", pair.teacher, pair.student, "--threads", str(threads)]
        command += [part for change in pair.changes for part in ("--set", change)] + ["--folded"] * pair.folded
        subprocess.run([*command, "--single", str(seed), "--output", str(single)], check=True)
        result: dict[str, Any] = json.loads(single.read_text())
        return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments that all benchmarks of pairs share."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2, help="of each seed")
    parser.add_argument("--at-once", type=int, default=1, help="seeds side by side")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", choices=list(RECIPES))
    parser.add_argument("student", help='name of the catalogue, or "teacher"')
    add_arguments(parser)
    parser.add_argument("--folded", action="store_true", help="fold the teacher's BatchNorm statistics away")
    parser.add_argument("--output", type=Path, help="JSON file; by default named after the pair")
    parser.add_argument("--single", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    pair = Pair(arguments.teacher, arguments.student, arguments.set, arguments.folded)
    if arguments.single is None:
        name = f"{pair.teacher}_{pair.student}{'_folded' if pair.folded else ''}.json"
        output = arguments.output or RESULTS / name
        run_pair(pair, arguments.seeds, threads=arguments.threads, output=output, at_once=arguments.at_once)
    else:
        arguments.output.write_text(json.dumps(measure_seed(pair, arguments.single)))


if __name__ == "__main__":
    main()
