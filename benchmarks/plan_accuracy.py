"""Compare plans with measurements: seconds by phase and peak memory of eight teachers, from LeNet to ResNet-50 at 224.

python -m benchmarks.plan_accuracy                      every teacher at effort quick: hours
python -m benchmarks.plan_accuracy --short lenet5       one teacher, with few rounds of every phase: minutes
python -m benchmarks.plan_accuracy --phases resnet18-224

Each run is a process of its own, measured just after this machine. On a machine that others use, read the column of
processor seconds, divided by the threads, beside that of wall-clock seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dfkd_core.sandbox.process_tuning import ensure_tuned

THREADS = 2
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


def main() -> None:
    """Measure this machine and each teacher, and print one line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan_accuracy", description=__doc__)
    parser.add_argument("teachers", nargs="*", choices=[*TEACHERS, []], help="some of the teachers; all by default")
    parser.add_argument("--short", action="store_true", help="few rounds of every phase instead of the whole run")
    parser.add_argument("--phases", action="store_true", help="print every phase")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--speed", type=Path, help="a kept calibration, such as one of the idle machine")
    parser.add_argument("--child", metavar="SPEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        ensure_tuned(THREADS)
        print(
            json.dumps(measured(options.teachers[0], Path(options.child), effort=options.effort, short=options.short))
        )
        return
    for name in options.teachers or TEACHERS:
        found = in_child(name, effort=options.effort, short=options.short, kept=options.speed)
        show(name, found, phases=options.phases)


def in_child(name: str, *, effort: str, short: bool, kept: Path | None) -> dict[str, Any]:
    """Run the calibration and then the job, each in a fresh process."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as speed:
        speed.write(calibrated() if kept is None else kept.read_text())
        speed.flush()
        command = [sys.executable, "-m", "benchmarks.plan_accuracy", name, "--effort", effort, "--child", speed.name]
        answer = subprocess.run(
            [*command, *(["--short"] if short else [])], stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def calibrated() -> str:
    """Measure this machine, and return its speed as JSON."""
    calibration = [sys.executable, "-m", "dfkd_core.calibration", "--threads", str(THREADS)]
    return subprocess.run(calibration, stdout=subprocess.PIPE, text=True, check=True).stdout


def show(name: str, found: dict[str, Any], *, phases: bool) -> None:
    """Print plan and measurement."""
    (planned, wall, processor), (need, peak) = found["seconds"], found["memory"]
    print(
        f"{name:14} {planned:8.1f} s planned, {wall:8.1f} s wall, {processor:8.1f} s processor / {THREADS}, "
        f"ratio {planned / wall:.2f} ({planned / processor:.2f}); "
        f"{need / 1e6:6.0f} MB planned, {peak / 1e6:6.0f} MB measured, ratio {need / peak:.2f}",
        flush=True,
    )
    for phase, (planned, wall, processor) in found["phases"].items() if phases else ():
        print(f"    {phase:12} {planned:8.2f} planned {wall:8.2f} wall {processor:8.2f} processor / {THREADS}")


def measured(name: str, speed_path: Path, *, effort: str, short: bool) -> dict[str, Any]:
    """Run one job, and return what was planned for it and what it took."""
    from benchmarks.hardware import peak_memory_bytes
    from dfkd_core.inspection.inspection import inspect_file
    from dfkd_core.inspection.job_facts import job_facts
    from dfkd_core.inspection.resolve import resolve
    from dfkd_core.pipeline import compress
    from dfkd_core.planning.forecast import forecast
    from dfkd_core.planning.memory import memory_need
    from dfkd_core.planning.worker_speed import WorkerSpeed
    from dfkd_core.progress import Update
    from dfkd_core.spec.config import DistillSpec

    speed = WorkerSpeed.model_validate_json(speed_path.read_text())
    with tempfile.TemporaryDirectory() as directory:
        path, teacher = write_teacher(name, Path(directory))
        document = {"teacher": teacher, "student": {"architecture": "teacher", "width": 0.5}}
        if name == "lenet5":
            document["student"] = {"architecture": "lenet5_half"}
        spec = DistillSpec.model_validate({**document, "distillation": {"budget": {"effort": effort}}})
        inspection = inspect_file(path, spec.teacher)
        resolved, description, _ = resolve(spec, inspection)
        if short:
            resolved = shortened(resolved)
        facts = job_facts(resolved, inspection, description)
        assert facts is not None
        planned = forecast(resolved.distillation, facts, speed)
        need = memory_need(resolved.distillation, facts, speed)
        phases: dict[str, list[float]] = {}
        started = last = (time.perf_counter(), time.process_time())

        def on_step(update: Update) -> bool:
            nonlocal last
            now = (time.perf_counter(), time.process_time())
            taken = phases.setdefault(update.phase or update.stage, [0.0, 0.0])
            taken[0] += now[0] - last[0]
            taken[1] += (now[1] - last[1]) / THREADS
            last = now
            return False

        compress(path, resolved, workspace=Path(directory) / "w", threads=THREADS, device="cpu", on_step=on_step)
    wall, processor = (now - before for now, before in zip(last, started, strict=True))
    start = speed.start_seconds  # a runner loads its libraries first
    return {
        "seconds": [planned.total_seconds, wall + start, processor / THREADS + start],
        "memory": [need.total, peak_memory_bytes()],
        "parts": [need.base, need.weights, need.activations, need.images],
        "phases": {
            phase: [planned.seconds.get(phase, 0.0), *phases.get(phase, [0.0, 0.0])]  # type: ignore[call-overload]
            for phase in dict.fromkeys([*(each.value for each in planned.seconds), *phases])
        },
    }


def shortened(spec: Any) -> Any:
    """Return the same job with few rounds: every phase occurs, and a unit of it costs the same."""
    from dfkd_core.options.published import merged
    from dfkd_core.spec.config import DistillConfig

    tree = merged(spec.distillation.model_dump(mode="json"), SHORT)
    return spec.model_copy(update={"distillation": DistillConfig.model_validate(tree)})


def write_teacher(name: str, directory: Path) -> tuple[Path, dict[str, Any]]:
    """Write an untrained teacher, and return its file with what a spec says about it."""
    import torch

    from dfkd_core.architectures import describe
    from dfkd_core.output.onnx_export import save_weights
    from dfkd_core.students.build import build_network

    kind, _, which = TEACHERS[name][0].partition(":")
    shape = TEACHERS[name][1]
    torch.manual_seed(0)
    if kind == "catalogue":
        description = describe(which, input_shape=shape, num_classes=10)
        path = directory / "teacher.safetensors"
        save_weights(build_network(description, generator=torch.Generator().manual_seed(0)), path, description)
        return path, {"architecture": which, "input": {"shape": list(shape)}}
    from benchmarks import imagenet_resnets

    path = directory / "teacher.onnx"
    imagenet_resnets.write_teacher(int(which), path)
    return path, {}


if __name__ == "__main__":
    main()
