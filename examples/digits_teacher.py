"""Trains a small teacher on real handwritten digits: plain PyTorch, nothing of this project.

The digits are the 1 797 scans of 8 x 8 that scikit-learn ships (UCI "Optical Recognition of Handwritten Digits"),
enlarged to 32 x 32. A third of them is held out: neither the teacher's training nor the distillation sees it.

    python examples/digits_teacher.py teacher.onnx
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = 0.305, 0.324  # of all pixels of the training digits after enlarging, in [0, 1]
SIDE = 32


@dataclass(frozen=True)
class Digits:
    """Normalised images (N, 1, 32, 32) and their labels (N,)."""

    images: Tensor
    labels: Tensor


def load_split() -> tuple[Digits, Digits]:
    """The training digits and the held-out digits; every class has the same share of both."""
    data = load_digits()
    pixels = torch.from_numpy(data.images).float().unsqueeze(1) / 16  # (1797, 1, 8, 8) in [0, 1]
    large = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    images, labels = (large - MEAN) / STD, torch.from_numpy(data.target).long()
    kept, held_out = train_test_split(np.arange(len(labels)), test_size=1 / 3, stratify=labels, random_state=0)
    return Digits(images[kept], labels[kept]), Digits(images[held_out], labels[held_out])


class DigitsNet(nn.Module):
    """Three convolutions with BatchNorm and one linear layer."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2, bias=False),  # (N, width, 16, 16)
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (N, 2 width, 8, 8)
            nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (N, 4 width, 4, 4)
        )
        self.classifier = nn.Linear(4 * width * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 1, 32, 32)."""
        return self.classifier(self.features(images).flatten(1))  # type: ignore[no-any-return]


def train_teacher(digits: Digits, *, width: int = 24, epochs: int = 12, seed: int = 0) -> DigitsNet:
    """Train with Adam, a cosine decay and random shifts of up to two pixels; takes seconds on a CPU."""
    torch.manual_seed(seed)
    network, batch = DigitsNet(width), 64
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(digits.labels) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(digits.labels))
        for chosen in order[: len(order) // batch * batch].split(batch):
            images = shifted(digits.images[chosen])
            loss = F.cross_entropy(network(images), digits.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def shifted(images: Tensor, reach: int = 2) -> Tensor:
    """Move every image by a random whole number of pixels of its own and fill the border with background."""
    padded = F.pad(images, (reach,) * 4, value=-MEAN / STD)
    down, right = torch.randint(2 * reach + 1, (2, len(images)))
    moved = [image[:, y : y + SIDE, x : x + SIDE] for image, y, x in zip(padded, down, right, strict=True)]
    return torch.stack(moved)


def export_teacher(network: nn.Module, path: Path) -> None:
    """Write one ONNX file with a dynamic batch and with the BatchNorm statistics, which the distillation can use."""
    example, batch = torch.zeros(1, 1, SIDE, SIDE), {0: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": batch, "logits": batch},
        )


@torch.no_grad()
def accuracy(network: nn.Module, digits: Digits) -> float:
    """Share of digits that the network names correctly."""
    predicted: NDArray[np.int64] = network(digits.images).argmax(1).numpy()
    return float((predicted == digits.labels.numpy()).mean())


if __name__ == "__main__":
    training, held_out = load_split()
    teacher = train_teacher(training)
    export_teacher(teacher, Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {accuracy(teacher, held_out):.2%} of {len(held_out.labels)} held-out digits")
