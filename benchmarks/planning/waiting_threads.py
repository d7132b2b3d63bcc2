"""Measures how long a thread that waits for work should spin before it sleeps, by the time of a student's update.

    python -m benchmarks.planning.waiting_threads [--spins 0 1000] [--neighbours 0 1] [--repeats 3]

OpenMP reads the setting once, so every number is a process of its own. The processes take turns, repeat by repeat, so
that a change of the machine meets all of them. A neighbour is a process that keeps one core busy. An update is a
forward, a backward and a step of Adam on 128 images; the record holds the median of each process, in milliseconds, and
the mean and the standard deviation over the repeats. Ratios are to the first number of spins.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.hardware import describe_run
from benchmarks.pair import RESULTS
from dfkd_core.architectures import describe
from dfkd_core.sandbox.process_tuning import tuned_environment
from dfkd_core.students.build import build_network

STUDENTS = (
    ("lenet5_half", (1, 32, 32), 1.0),
    ("resnet8", (3, 32, 32), 1.0),
    ("resnet20", (3, 32, 32), 0.5),
    ("mobilenetv2", (3, 32, 32), 0.5),
)
BATCH = 128
SECONDS = 2.0  # of each student in each process


def main() -> None:
    """Measure every number of spins beside every number of neighbours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", type=int, nargs="+", default=[0, 300, 1000, 5000, 20000])
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(updates(options.threads)))
        return
    record = {**describe_run(options.threads), "batch": BATCH, "repeats": options.repeats, "neighbours": {}}
    for count in options.neighbours:
        record["neighbours"][count] = measured(count, options)
    (RESULTS / "waiting_threads.json").write_text(json.dumps(record, indent=1) + "\n")


def measured(neighbours: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds of an update, by number of spins and student."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        tries = [[in_child(spins, options.threads) for spins in options.spins] for _ in range(options.repeats)]
    finally:
        for each in busy:
            each.kill()
            each.wait()
    found = {}
    for spins, times in zip(options.spins, zip(*tries, strict=True), strict=True):
        found[str(spins)] = {name: summary([each[name] for each in times]) for name in times[0]}
    for spins, students in found.items():
        first = found[str(options.spins[0])]
        shown = [
            f"{name} {each['mean']:.1f} ms (×{each['mean'] / first[name]['mean']:.2f})"
            for name, each in students.items()
        ]
        print(f"{neighbours} neighbours, {spins:>6} spins: {', '.join(shown)}", flush=True)
    return found


def summary(times: list[float]) -> dict[str, float]:
    """Return mean and standard deviation of a few times."""
    spread = statistics.stdev(times) if len(times) > 1 else 0.0
    return {"mean": round(statistics.mean(times), 2), "std": round(spread, 2), "n": len(times)}


def in_child(spins: int, threads: int) -> dict[str, float]:
    """Measure one number of spins in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.planning.waiting_threads", "--child", "--threads", str(threads)]
    environment = {**tuned_environment(os.environ, threads=threads), "GOMP_SPINCOUNT": str(spins)}
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def updates(threads: int) -> dict[str, float]:
    """Return the median milliseconds of an update of each student."""
    torch.set_num_threads(threads)
    found = {}
    for name, shape, width in STUDENTS:
        description = describe(name, input_shape=shape, num_classes=10, width=width)
        network = build_network(description, generator=torch.Generator().manual_seed(0)).train()
        network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters())
        images = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
        images = images.contiguous(memory_format=torch.channels_last)
        times = []
        ends = time.perf_counter() + SECONDS
        while time.perf_counter() < ends:
            started = time.perf_counter()
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
            times.append(time.perf_counter() - started)
        found[name] = 1000 * statistics.median(times)
    return found


if __name__ == "__main__":
    main()
