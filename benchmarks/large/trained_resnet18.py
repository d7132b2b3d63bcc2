"""A ResNet-18 of 224 × 224, trained briefly on enlarged images of CIFAR-10, and its test images.

python -m benchmarks.large.trained_resnet18 [--threads 2]

The images grow during the training (`STAGES`), so that most steps are cheap and the last are of the full size. The
teacher is cached outside the repository, as an ONNX file with its BatchNorms.
"""

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.datasets import NORMALISATIONS, LabelledImages, load_images
from benchmarks.large.imagenet_resnets import MEAN, SIDE, STD, resnet
from benchmarks.teachers import CACHE, SEED
from dfkd_core.exporting.onnx_writers import WRITERS, write_onnx

STAGES = ((64, 40_000), (128, 8_000), (SIDE, 2_560))
"""Side of the training images, and how many of that size are seen."""
BATCH_SIZE = 64
LEARNING_RATE = 0.05
SETTLING_IMAGES = 320  # training images of the full size, over which BatchNorm statistics are averaged at the end


def trained_teacher() -> Path:
    """Return the ONNX file of the teacher, from the cache or trained now (about ten minutes of one core)."""
    path = CACHE / f"cifar10-resnet18-{SIDE}-seed{SEED}.onnx"
    if not path.exists():
        torch.manual_seed(SEED)
        network = resnet(18)
        train(network, load_images("cifar10", "train"))
        CACHE.mkdir(exist_ok=True)
        write_onnx(WRITERS[0], network.eval(), torch.zeros(2, 3, SIDE, SIDE), path, opset=18, fixed=False)
    return path


def enlarged(pixels: Tensor, side: int) -> Tensor:
    """Return images of 32 pixels (N, 3, 32, 32), normalised as CIFAR-10, enlarged and normalised as ImageNet."""
    known = NORMALISATIONS["cifar10"]
    old_mean, old_std, mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (known.mean, known.std, MEAN, STD))
    images = (pixels * old_std + old_mean - mean) / std
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def enlarged_test_images(count: int) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Return the first test images of CIFAR-10 as the teacher takes them, each with its class."""
    test = load_images("cifar10", "test")
    for number in range(count):
        yield enlarged(test.images[number : number + 1], SIDE)[0].numpy(), int(test.labels[number])


def train(network: nn.Module, data: LabelledImages) -> None:
    """Train with cross-entropy by SGD; the learning rate rises in the first tenth and falls as a cosine."""
    draws = torch.Generator().manual_seed(SEED)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    sizes = [side for side, images in STAGES for _ in range(images // BATCH_SIZE)]
    begun = time.monotonic()
    for step, side in enumerate(sizes):
        share = (step + 1) / len(sizes)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(share / 0.1, 0.5 * (1 + math.cos(math.pi * share)))
        chosen = torch.randint(len(data.labels), (BATCH_SIZE,), generator=draws)
        images = _shifted(data.images[chosen], draws)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(enlarged(images, side).contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), data.labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(
                f"step {step} of {len(sizes)}, side {side}, loss {loss.item():.3f}, {time.monotonic() - begun:.0f} s",
                flush=True,
            )
    _settle(network, data, draws)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _shifted(images: Tensor, draws: torch.Generator) -> Tensor:
    """Return the batch moved by up to four of 32 pixels, the same for all of it, and half of the images mirrored."""
    down, across = torch.randint(0, 9, (2,), generator=draws).tolist()
    moved = F.pad(images, (4, 4, 4, 4), mode="reflect")[:, :, down : down + 32, across : across + 32]
    mirrored = torch.rand(len(images), 1, 1, 1, generator=draws) < 0.5
    return torch.where(mirrored, moved.flip(3), moved)


@torch.no_grad()
def _settle(network: nn.Module, data: LabelledImages, draws: torch.Generator) -> None:
    """Replace the BatchNorm statistics by averages over images of the full size."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for chosen in torch.randperm(len(data.labels), generator=draws)[:SETTLING_IMAGES].split(BATCH_SIZE):
        network(enlarged(data.images[chosen], SIDE))


def main() -> None:
    """Train the teacher if it is missing, and print its accuracy."""
    from benchmarks.large.pairs import classes_of_file, percent

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    torch.set_num_threads(parser.parse_args().threads)
    images, labels = zip(*enlarged_test_images(1000), strict=True)
    right = percent(classes_of_file(trained_teacher(), np.stack(images)), np.array(labels))
    print(f"right on {right} % of {len(labels)} test images")


if __name__ == "__main__":
    main()
