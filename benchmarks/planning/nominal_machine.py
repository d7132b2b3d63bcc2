"""Measures the rates of the nominal machine, from which the numbers of each effort follow: two CPU cores in fp32.

python -m benchmarks.planning.nominal_machine [--threads 2] [--repeats 5]

Networks of several sizes run forward, back to their images and back to their weights. The rates of
`dfkd_core.planning.speed.Speed` are fitted to the shortest times by least squares of the relative error, with no rate
below zero. The printed values are the constants of `dfkd_core.planning.nominal`; they change only in a release that
says so, because every job's numbers follow from them.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from benchmarks.hardware import describe_hardware
from benchmarks.pair import RESULTS
from dfkd_core.architectures import describe
from dfkd_core.images.augment import augment
from dfkd_core.images.procedural import procedural_images
from dfkd_core.options.passes import Direction
from dfkd_core.planning.sizes import NetworkSize, size_of_description
from dfkd_core.planning.speed import CALLS, MACS, TRAFFIC, UPDATE_BYTES
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.spec.config import Augmentation
from dfkd_core.students.build import build_network

CASES = (
    ("lenet5", (1, 32, 32), 256),
    ("lenet5_half", (1, 32, 32), 256),
    ("resnet8", (3, 32, 32), 128),
    ("resnet20", (3, 32, 32), 128),
    ("resnet20", (3, 32, 32), 16),
    ("wrn_16_2", (3, 32, 32), 64),
    ("vgg11", (3, 32, 32), 64),
    ("mobilenetv2", (3, 48, 48), 32),
    ("mobilenetv2", (3, 96, 96), 16),
    ("resnet18", (3, 32, 32), 32),
    ("resnet18", (3, 64, 64), 8),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: what a pass costs in the units of the three rates, and its seconds."""

    case: str
    macs: float
    moved_bytes: float
    calls: float
    seconds: float


def rows_of(architecture: str, shape: tuple[int, int, int], batch: int, *, repeats: int) -> list[Row]:
    """Measure one network in all directions."""
    description = describe(architecture, input_shape=shape, num_classes=10)
    network = build_network(description, generator=torch.Generator().manual_seed(0))
    network.to(memory_format=torch.channels_last)
    size, images = size_of_description(description), torch.randn(batch, *shape)
    found = []
    for direction in Direction:
        seconds = shortest(runner(network, images, direction), repeats=repeats)
        name = f"{architecture} {shape[1]} px, {batch} images, {direction}"
        found.append(row(name, size, batch, direction, seconds))
        print(f"{name:60s} {1000 * seconds:9.2f} ms", flush=True)
    return found


def row(name: str, size: NetworkSize, batch: int, direction: Direction, seconds: float) -> Row:
    """Return the measurement in the units of the rates."""
    moved = batch * TRAFFIC[direction] * size.activation_bytes
    if direction == Direction.TO_WEIGHTS:
        moved += UPDATE_BYTES * size.parameters
    return Row(name, batch * MACS[direction] * size.macs, moved, CALLS[direction] * size.operations, seconds)


def runner(network: nn.Module, images: Tensor, direction: Direction) -> Callable[[], None]:
    """Return what is timed: as the loop does it, the update of Adam included."""
    training = direction == Direction.TO_WEIGHTS
    network.train(training).requires_grad_(training)
    optimizer = torch.optim.Adam(network.parameters()) if training else None

    def forward() -> None:
        with torch.no_grad():
            network(images)

    def to_input() -> None:
        leaf = images.clone().requires_grad_(True)
        torch.autograd.grad(network(leaf).square().sum(), [leaf])

    def to_weights() -> None:
        assert optimizer is not None
        optimizer.zero_grad(set_to_none=True)
        network(images).square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    runs = {Direction.FORWARD: forward, Direction.TO_INPUT: to_input, Direction.TO_WEIGHTS: to_weights}
    return runs[direction]


def shortest(run: Callable[[], None], *, repeats: int) -> float:
    """Return the shortest of several runs in seconds, after one that is not counted; other work only adds to runs."""
    run()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)


def fitted(rows: list[Row]) -> tuple[dict[str, float], list[float]]:
    """Return the rates, and the ratio of fitted to measured seconds of every row."""
    units = np.array([[each.macs, each.moved_bytes, each.calls] for each in rows])
    seconds = np.array([each.seconds for each in rows])
    scale = units.max(axis=0)
    costs = nnls(units / scale / seconds[:, None], np.ones(len(rows)))[0] / scale
    rates = {
        "macs_per_second": 1 / costs[0],
        "bytes_per_second": 1 / costs[1] if costs[1] else float("inf"),
        "seconds_per_call": costs[2],
    }
    return rates, list(units @ costs / seconds)


def pixel_costs(*, repeats: int) -> dict[str, float]:
    """Return the seconds for one value (a channel of a pixel) that is drawn, and that is augmented as by default."""
    shape, count = (3, 32, 32), 512
    values = count * shape[0] * shape[1] * shape[2]
    draws, images = torch.Generator().manual_seed(0), torch.rand(count, *shape)
    low, high = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    usual = Augmentation(mixup=0.5)
    drawing = shortest(lambda: void(procedural_images(shape, count, generator=draws)), repeats=repeats)
    changing = shortest(lambda: void(augment(images, usual, low=low, high=high, generator=draws)), repeats=repeats)
    return {"seconds_per_drawn_value": drawing / values, "seconds_per_augmented_value": changing / values}


def void(_result: object) -> None:
    """Drop a result."""


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "nominal_machine.json")
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    rows = [each for case in CASES for each in rows_of(*case, repeats=arguments.repeats)]
    rates, ratios = fitted(rows)
    rates |= pixel_costs(repeats=arguments.repeats)
    for each, ratio in zip(rows, ratios, strict=True):
        print(f"{each.case:60s} fitted / measured {ratio:5.2f}")
    for name, value in rates.items():
        print(f"{name} = {value:.3g}")
    record: dict[str, Any] = {
        "hardware": {**describe_hardware(), "threads": arguments.threads},
        "rates": rates,
        "rows": [
            {"case": each.case, "seconds": each.seconds, "fitted": each.seconds * ratio}
            for each, ratio in zip(rows, ratios, strict=True)
        ],
    }
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
