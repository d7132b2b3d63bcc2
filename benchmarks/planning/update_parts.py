"""Times parts of a student's update that decide how the product computes them, on this machine.

    python -m benchmarks.planning.update_parts [--threads 2] [--repeats 7]

Precision: the gradient of 128 images of 32 pixels towards the weights, as in an update, and towards the pixels, as in
an inversion, in fp32 and in bfloat16. Blocks: the loss of narrowed copies and its gradient on maps in channels-last
order, by the plain expression on whole maps and by `unexplained_channels`. New tensors: the gradient towards the
weights in fp32 with deterministic algorithms, where PyTorch fills every new tensor and where it does not. Times are
medians in milliseconds; what is compared takes turns, repeat by repeat. The record is
`benchmarks/results/update_parts.json`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import deterministic

from benchmarks.hardware import describe_run
from benchmarks.pair import RESULTS
from dfkd_core.architectures import describe
from dfkd_core.networks.losses import unexplained_channels
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.students.build import build_network

NETWORKS = ("resnet20", "mobilenetv2")
FILLED = (("lenet5", 1), ("resnet8", 3), ("resnet20", 3), ("mobilenetv2", 3))  # networks, with channels of their images
IMAGES = 128
MAPS = ((8, 32, 112, 112), (8, 128, 56, 56), (8, 512, 14, 14), (128, 16, 32, 32))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Time all parts, print them and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    ensure_tuned(options.threads)
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {}
    for name in NETWORKS:
        for towards in ("weights", "pixels"):
            ways = {precision: gradient(name, towards, narrow=precision == "bf16") for precision in DTYPES}
            found[f"{name}, towards {towards}"] = timed(ways, options.repeats)
    for shape in MAPS:
        for precision, dtype in DTYPES.items():
            ways = {"whole": comparison(shape, dtype, whole), "rows": comparison(shape, dtype, unexplained_channels)}
            found[f"blocks of {list(shape)} in {precision}"] = timed(ways, options.repeats)
    for name, channels in FILLED:
        run = gradient(name, "weights", narrow=False, channels=channels)
        ways = {"filled": with_new_tensors(run, filled=True), "not filled": with_new_tensors(run, filled=False)}
        found[f"{name}, new tensors"] = timed(ways, options.repeats)
    for name, times in found.items():
        first, second = times.values()
        shown = ", ".join(f"{way} {milliseconds:.1f} ms" for way, milliseconds in times.items())
        print(f"{name}: {shown}, ratio {second / first:.2f}")
    record = {**describe_run(options.threads), "repeats": options.repeats, "milliseconds": found}
    (RESULTS / "update_parts.json").write_text(json.dumps(record, indent=1) + "\n")


def timed(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the median milliseconds of each function. They run in turns, so that all meet the same machine."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            if repeat:  # the first one makes buffers
                times[way].append(1000 * (time.perf_counter() - started))
    return {way: round(statistics.median(each), 2) for way, each in times.items()}


def with_new_tensors(run: Callable[[], None], *, filled: bool) -> Callable[[], None]:
    """Return a function that runs with deterministic algorithms, and fills new tensors or does not."""

    def computed() -> None:
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = filled
        run()
        torch.use_deterministic_algorithms(False)

    return computed


def gradient(name: str, towards: str, *, narrow: bool, channels: int = 3) -> Callable[[], None]:
    """Return a function that computes a gradient of a network with random weights."""
    draws = torch.Generator().manual_seed(0)
    network = build_network(describe(name, input_shape=(channels, 32, 32), num_classes=10), generator=draws)
    network.to(memory_format=torch.channels_last).train(towards == "weights").requires_grad_(towards == "weights")
    images = torch.randn((IMAGES, channels, 32, 32), generator=draws).contiguous(memory_format=torch.channels_last)
    images.requires_grad_(towards == "pixels")

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            logits = network(images)
        logits.float().square().mean().backward()

    return run


def comparison(
    shape: tuple[int, ...], dtype: torch.dtype, how: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[], None]:
    """Return a function that compares two maps (N, C, H, W) and computes the gradient."""
    draws = torch.Generator().manual_seed(0)
    ours, theirs = (
        torch.randn(shape, generator=draws).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    ours.requires_grad_()
    return lambda: how(ours, theirs).backward()  # type: ignore[no-untyped-call]


def whole(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the loss by whole maps, each step after the other."""
    guess, wanted = ours.float(), theirs.float()
    variance = wanted.var(dim=(0, 2, 3), correction=0)
    return ((guess - wanted).square().mean(dim=(0, 2, 3)) / variance).mean()


if __name__ == "__main__":
    main()
