"""Compare plans with measurements: seconds by phase and peak memory of eight teachers, from LeNet to ResNet-50 at 224.

    python -m benchmarks.planning.plan_accuracy                  every teacher at effort quick: hours
    python -m benchmarks.planning.plan_accuracy --short lenet5   one teacher, with few rounds of every phase: minutes
    python -m benchmarks.planning.plan_accuracy --short --phases --clock cpu resnet18-224

Each run is a process of its own, measured just after this machine. The record in `benchmarks/results` is written as
each run ends. The same command goes on where it was cut off: teachers that stand in the record are not run again unless
`--again` is given. On a machine that others use, `--clock cpu` counts processor seconds, divided by the threads.

The teachers have random weights; the statistics of their BatchNorms and the means of their classes are those of
procedural images, so that all classes occur as they do with a trained teacher.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfkd_core.sandbox.process_tuning import ensure_tuned

TIME_BAR, MEMORY_BAR = 1.5, 1.3  # factors
SETTLED_ON = 256  # procedural images
SHORT = {"training": {"updates_per_round": 10}, "method_options": {"warmup_rounds": 1}, "budget": {"steps": 20}}
TEACHERS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "lenet5": ("catalogue:lenet5", (1, 32, 32)),
    "vgg11": ("catalogue:vgg11", (3, 32, 32)),
    "resnet20": ("catalogue:resnet20", (3, 32, 32)),
    "wrn_16_2": ("catalogue:wrn_16_2", (3, 32, 32)),
    "mobilenetv2": ("catalogue:mobilenetv2", (3, 32, 32)),
    "resnet18": ("catalogue:resnet18", (3, 32, 32)),
    "resnet18-224": ("imagenet:18", (3, 224, 224)),
    "resnet50-224": ("imagenet:50", (3, 224, 224)),
}
RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> None:
    """Measure this machine and each teacher, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="*", metavar="TEACHER", help=f"some of {', '.join(TEACHERS)}; all by default")
    parser.add_argument("--short", action="store_true", help="few rounds of every phase instead of the whole run")
    parser.add_argument("--phases", action="store_true", help="print every phase")
    parser.add_argument("--again", action="store_true", help="run teachers again that stand in the record")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--speed", type=Path, help="a kept calibration, such as one of the idle machine")
    parser.add_argument("--output", type=Path, help="the record; that of whole runs is results/plan_accuracy.json")
    parser.add_argument("--child", metavar="SPEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        ensure_tuned(options.threads)
        print(json.dumps(measured(options.teachers[0], options)))
        return
    output = options.output or RESULTS / ("plan_accuracy_short.json" if options.short else "plan_accuracy.json")
    record = kept_record(output)
    for name in options.teachers or TEACHERS:
        known = record.setdefault("teachers", {})
        if name not in known or options.again:
            known[name] = in_child(name, options)
            write_record(output, record)
        show(name, known[name], phases=options.phases)


def in_child(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run the calibration and then the job, each in a fresh process."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as speed:
        speed.write(options.speed.read_text() if options.speed else calibrated(options.threads))
        speed.flush()
        command = [sys.executable, "-m", "benchmarks.planning.plan_accuracy", name, "--child", speed.name]
        command += ["--clock", options.clock, "--effort", options.effort, "--threads", str(options.threads)]
        command += ["--short"] if options.short else []
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def calibrated(threads: int) -> str:
    """Measure this machine, and return its speed as JSON."""
    calibration = [sys.executable, "-m", "dfkd_core.calibration", "--threads", str(threads)]
    return subprocess.run(calibration, stdout=subprocess.PIPE, text=True, check=True).stdout


def seconds_by(clock: str, threads: int) -> Callable[[], float]:
    """Return a clock: of the wall, or of the processor seconds of this process, divided by its threads."""
    return time.monotonic if clock == "wall" else lambda: time.process_time() / threads


def kept_record(path: Path) -> dict[str, Any]:
    """Return the record of earlier runs; an empty one if there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replace the record as a whole, so that a run that is cut off leaves the one before."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1) + "\n")
    new.replace(path)


def show(name: str, found: dict[str, Any], *, phases: bool) -> None:
    """Print plan and measurement."""
    (planned, seconds), (need, peak) = found["seconds"], found["memory"]
    print(
        f"{name:14} {planned:8.1f} s planned, {seconds:8.1f} s by the {found['clock']} clock, "
        f"ratio {planned / seconds:.2f} (bar {1 / TIME_BAR:.2f} to {TIME_BAR}); "
        f"{need / 1e6:6.0f} MB planned, {peak / 1e6:6.0f} MB measured, "
        f"ratio {need / peak:.2f} (bar {1 / MEMORY_BAR:.2f} to {MEMORY_BAR})",
        flush=True,
    )
    for phase, (planned, seconds) in found["phases"].items() if phases else ():
        print(
            f"    {phase:12} {planned:8.2f} planned {seconds:8.2f} measured, ratio {planned / max(seconds, 1e-3):.2f}"
        )
    if phases:
        print("    memory: " + ", ".join(f"{part} {size / 1e6:.0f} MB" for part, size in found["parts"].items()))


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one job, and return what was planned for it and what it took."""
    from benchmarks.hardware import describe_hardware, peak_memory_bytes
    from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
    from dfkd_core.inspection.job_facts import job_facts
    from dfkd_core.inspection.resolve import resolve
    from dfkd_core.pipeline import compress
    from dfkd_core.planning.forecast import forecast
    from dfkd_core.planning.memory import memory_need
    from dfkd_core.planning.worker_speed import WorkerSpeed
    from dfkd_core.pulse import Pulse
    from dfkd_core.spec.config import DistillSpec

    speed, threads = WorkerSpeed.model_validate_json(Path(options.child).read_text()), options.threads
    clock = seconds_by(options.clock, threads)
    pulse = Pulse(now=clock)
    with tempfile.TemporaryDirectory() as directory:
        path, teacher = write_teacher(name, Path(directory))
        document = {"teacher": teacher, "student": {"architecture": "teacher", "width": 0.5}}
        if name == "lenet5":
            document["student"] = {"architecture": "lenet5_half"}
        spec = DistillSpec.model_validate({**document, "distillation": {"budget": {"effort": options.effort}}})
        inspection, _ = inspect_with_input_space(path, spec.teacher)
        resolved, description, _ = resolve(spec, inspection)
        if options.short:
            resolved = shortened(resolved)
        facts = job_facts(resolved, inspection, description)
        assert facts is not None
        planned = forecast(resolved.distillation, facts, speed)
        need = memory_need(resolved.distillation, facts, speed)
        done = compress(
            path,
            resolved,
            workspace=Path(directory) / "work",
            threads=threads,
            device="cpu",
            on_step=lambda _update: False,
            speed=speed,
            bf16_tries=speed.bf16_tries,
            clock=clock,
            pulse=pulse,
        )
    taken = dict(pulse.seconds)
    stages = done.report.durations
    taken["prepare"] = speed.start_seconds + stages["load"] + stages["inspect"]  # a runner loads its libraries first
    taken |= {"export": stages["export"], "verify": stages["verify"]}
    taken["between"] = stages["distill"] - sum(pulse.seconds.values())
    return {
        "clock": options.clock,
        "hardware": {**describe_hardware(), "threads": threads},
        "method": resolved.distillation.method,
        "precision": done.report.precision and done.report.precision.value,
        "seconds": [round(planned.total_seconds, 2), round(sum(taken.values()), 2)],
        "memory": [need.total, peak_memory_bytes()],
        "parts": {"base": need.base, "weights": need.weights, "activations": need.activations, "images": need.images},
        "phases": {
            phase: [round(planned.seconds.get(phase, 0.0), 2), round(taken.get(phase, 0.0), 2)]  # type: ignore[call-overload]
            for phase in dict.fromkeys([*(each.value for each in planned.seconds), *taken])
        },
        "speed": speed.model_dump(mode="json"),
    }


def shortened(spec: Any) -> Any:
    """Return the same job with few rounds: every phase occurs, and a unit of it costs the same."""
    from dfkd_core.options.published import merged
    from dfkd_core.spec.config import DistillConfig

    tree = merged(spec.distillation.model_dump(mode="json"), SHORT)
    return spec.model_copy(update={"distillation": DistillConfig.model_validate(tree)})


def write_teacher(name: str, directory: Path, *, folded: bool = False) -> tuple[Path, dict[str, Any]]:
    """Write a teacher, and return its file with what a spec says about it. `folded`: as ONNX without BatchNorms."""
    import torch

    from dfkd_core.architectures import describe
    from dfkd_core.output.onnx_export import save_weights
    from dfkd_core.students.build import build_network

    kind, _, which = TEACHERS[name][0].partition(":")
    shape = TEACHERS[name][1]
    torch.manual_seed(0)
    if kind == "catalogue":
        description = describe(which, input_shape=shape, num_classes=10)
        network = build_network(description, generator=torch.Generator().manual_seed(0))
        settle(network, shape)
        if not folded:
            path = directory / "teacher.safetensors"
            save_weights(network, path, description)
            return path, {"architecture": which, "input": {"shape": list(shape)}}
        path = directory / "teacher.onnx"
        torch.onnx.export(network.eval(), (torch.zeros(2, *shape),), str(path), dynamo=False, opset_version=17)
        return path, {"input": {"mean": [0.5] * shape[0], "std": [0.5] * shape[0]}}
    from benchmarks.large import imagenet_resnets

    path = directory / "teacher.onnx"
    imagenet_resnets.write_teacher(int(which), path)
    return path, {}


def settle(network: Any, shape: tuple[int, int, int]) -> None:
    """Give BatchNorms the statistics of procedural images, and every class the same mean and a usual spread."""
    import torch
    from torch import nn

    from dfkd_core.images.procedural import procedural_images

    images = procedural_images(shape, SETTLED_ON, generator=torch.Generator().manual_seed(1))
    classifier = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        network.train()(images)
        logits = network.eval()(images)
        spread = logits.std(dim=0)
        classifier.weight.mul_(3 / spread[:, None])
        classifier.bias.copy_((classifier.bias - logits.mean(dim=0)) * 3 / spread)


if __name__ == "__main__":
    main()
