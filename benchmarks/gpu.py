r"""Measures what precision and compilation gain: student updates per second of the default loop, compared with fp32.

    python -m benchmarks.gpu                                    on CUDA, every combination, n = 3
    python -m benchmarks.gpu --device cpu --threads 1 --steps 16 --repeats 1 --teacher lenet5 --student lenet5_half

Teacher and student have random weights, because weights do not change the cost of a step. Each combination first runs
`steps` updates that are not measured (they compile, and fill the memory's pools), then `repeats` times; rounds
alternate as in a job, evaluations are left out. On CUDA, the operations of the student updates (labelling, forward,
backward, from counted multiply-adds) are compared with the rate of large square matrix products in the same precision
on the same card. The generator's operations are not counted, so the share is a lower bound.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.hardware import describe_hardware
from benchmarks.metrics import mean_and_std
from benchmarks.pair import RESULTS
from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.loop.round import train_round
from dfkd_core.loop.state import Run, build_run, seeded_global_draws
from dfkd_core.networks.precision import Engine, engine_running
from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.spec.config import DistillConfig
from dfkd_core.students.build import build_network

SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp32 compiled": {"compile": True},
    "bf16 compiled": {"precision": "bf16", "compile": True},
}
CLASSES = 10
PASSES = 3  # of a network that learns: forward, and backward to weights and to inputs
PRODUCT = 8192  # side of the square matrices of the reference rate
PRODUCTS = 50


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--teacher", default="resnet20")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--shape", type=int, nargs=3, default=[3, 32, 32])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--config", type=json.loads, default={}, help="JSON of a distillation, over the defaults")
    parser.add_argument("--steps", type=int, default=400, help="student updates of one measurement, in whole rounds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    hardware = {**describe_hardware(), "device": torch.cuda.get_device_name(device) if on_cuda(device) else "cpu"}
    print(json.dumps(hardware), flush=True)
    rows = {name: measure(SETTINGS[name], arguments, device) for name in arguments.settings}
    for name, row in rows.items():
        row["speedup"] = row["steps_per_second"] / rows[arguments.settings[0]]["steps_per_second"]
        print(line(name, row, against=arguments.settings[0]))
    asked = {key: value for key, value in vars(arguments).items() if key != "output"}
    arguments.output.write_text(json.dumps({"hardware": hardware, "asked": asked, "rows": rows}, indent=1) + "\n")


def measure(compute: dict[str, Any], arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return the updates per second of one combination, and on CUDA their share of the card's matrix rate."""
    config = config_of(compute, arguments)
    with seeded_global_draws(config.seed), engine_running(Engine(config.compute), device=device):
        descriptions = [description(name, arguments.shape) for name in (arguments.teacher, arguments.student)]
        run = started(config, descriptions, arguments.shape, device)
        steps = run.config.training.updates_per_round * -(-arguments.steps // run.config.training.updates_per_round)
        first = seconds_of(lambda: advance(run, steps), device)
        taken = [seconds_of(lambda: advance(run, steps), device) for _ in range(arguments.repeats)]
    mean, std = mean_and_std([steps / seconds for seconds in taken])
    row = {"steps_per_second": mean, "std": std, "n": arguments.repeats, "first_seconds": first}
    if on_cuda(device):
        row["matrix_tflops"] = matrix_rate(device, narrow=config.compute.precision == "bf16") / 1e12
        row["needed_tflops"] = mean * operations(descriptions, config) / 1e12
        row["share_of_the_card"] = row["needed_tflops"] / row["matrix_tflops"]
    return row


def config_of(compute: dict[str, Any], arguments: argparse.Namespace) -> DistillConfig:
    """Return the default options with a budget so long that no phase of the run ends during the measurement."""
    total = 10 * arguments.steps * (arguments.repeats + 2)
    return DistillConfig.model_validate({**arguments.config, "compute": compute, "budget": {"steps": total}})


def description(name: str, shape: list[int]) -> NetworkDescription:
    """Return a network of the catalogue for these images."""
    return describe(name, input_shape=shape, num_classes=CLASSES)


def started(
    config: DistillConfig, descriptions: list[NetworkDescription], shape: list[int], device: torch.device
) -> Run:
    """Return a run past its warm-up."""
    teacher, student = (build_network(one, generator=torch.Generator().manual_seed(0)) for one in descriptions)
    channels, height, width = shape
    space = InputSpace((channels, height, width), (-1.0,) * channels, (1.0,) * channels, range_known=True)
    whole = Teacher(teacher, space, num_classes=CLASSES, classifier=teacher.classifier)
    run = build_run(whole, student.to(device), config)
    while run.counters.warmup_rounds < config.method_options.warmup_rounds:
        train_round(run)
    return run


def advance(run: Run, steps: int) -> None:
    """Do at least this many student updates, in whole rounds."""
    until = run.counters.steps + steps
    while run.counters.steps < until:
        train_round(run)


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    """Wall-clock seconds, including the time until the device has finished."""
    settle(device)
    begun = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - begun


def settle(device: torch.device) -> None:
    """Wait until the device has finished."""
    if on_cuda(device):
        torch.cuda.synchronize(device)


def on_cuda(device: torch.device) -> bool:
    """Return whether the device is a CUDA card."""
    return device.type == "cuda"


def operations(descriptions: list[NetworkDescription], config: DistillConfig) -> float:
    """Floating-point operations of one student update: a teacher's forward, the student's forward and backward."""
    teacher, student = descriptions
    return 2.0 * config.training.batch_size * (teacher.macs + PASSES * student.macs)


def matrix_rate(device: torch.device, *, narrow: bool) -> float:
    """Operations a second of large square matrix products, the median of five measurements."""
    kind = torch.bfloat16 if narrow else torch.float32
    left, right = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=kind) for _ in range(2))

    def multiply() -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, right)

    multiply()
    taken = statistics.median(seconds_of(multiply, device) for _ in range(5))
    return 2.0 * PRODUCT**3 * PRODUCTS / taken


def line(name: str, row: dict[str, Any], *, against: str) -> str:
    """Return one combination in words."""
    text = f"{name:14s} {row['steps_per_second']:8.2f} ± {row['std']:.2f} updates/s (n = {row['n']})"
    text += f"  {row['speedup']:.2f} x {against}, first {row['first_seconds']:.0f} s"
    if "share_of_the_card" in row:
        text += f", {row['needed_tflops']:.2f} of {row['matrix_tflops']:.0f} TFLOP/s"
        text += f" ({100 * row['share_of_the_card']:.2f} %)"
    return text


if __name__ == "__main__":
    main()
