"""Demonstration teachers, trained on real data once and kept outside the repository's history.

python -m benchmarks.teachers        trains the MNIST LeNet-5 if it is not in the cache, and prints its accuracy
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.mnist import MEAN, STD, Digits, load_mnist
from dfkd_core.augment import augment
from dfkd_core.build import build_network
from dfkd_core.config import Augmentation, InputSpec
from dfkd_core.students import describe
from dfkd_core.teachers.teacher import InputSpace, Teacher

CACHE = Path(__file__).resolve().parent / ".cache"
SEED = 0
EPOCHS = 12
BATCH_SIZE = 128
LEARNING_RATE = 2e-3


def mnist_lenet5() -> Teacher:
    """LeNet-5 for 32 × 32 digits, from the cache or trained now (about two minutes on two cores)."""
    path = CACHE / f"mnist-lenet5-seed{SEED}.safetensors"
    network = build_network(
        describe("lenet5", input_shape=(1, 32, 32), num_classes=10), generator=torch.Generator().manual_seed(SEED)
    )
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        train(network, load_mnist("train"))
        CACHE.mkdir(exist_ok=True)
        save_file(network.state_dict(), path)
    low, high = InputSpec(shape=[1, 32, 32], mean=[MEAN], std=[STD]).pixel_bounds()
    space = InputSpace(shape=(1, 32, 32), low=tuple(low), high=tuple(high), range_known=True)
    return Teacher(network, space, num_classes=10, classifier=network.classifier)


def train(network: nn.Module, digits: Digits) -> None:
    """Adam with a cosine to zero, images shifted by up to two pixels."""
    draws = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-5)
    steps = EPOCHS * (len(digits.labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    low, high = (torch.full((1, 1, 1, 1), (bound - MEAN) / STD) for bound in (0.0, 1.0))
    shifts = Augmentation(shift=0.0625, mixup=0.0, noise=0.0)
    for _ in range(EPOCHS):
        order = torch.randperm(len(digits.labels), generator=draws)
        for chosen in order.split(BATCH_SIZE)[: len(order) // BATCH_SIZE]:
            images = augment(digits.images[chosen], shifts, low=low, high=high, generator=draws)
            loss = F.cross_entropy(network.train()(images), digits.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Classes (N,) that a network in eval mode gives to images (N, C, H, W)."""
    return torch.cat([network(chunk).argmax(dim=1) for chunk in images.split(1000)])


def accuracy(network: nn.Module, digits: Digits) -> float:
    """Percent of images classified correctly."""
    return 100 * float((predict(network, digits.images) == digits.labels).double().mean())


if __name__ == "__main__":
    print(f"LeNet-5, MNIST test set: {accuracy(mnist_lenet5(), load_mnist('test')):.2f} %")
