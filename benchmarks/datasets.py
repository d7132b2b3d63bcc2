"""Images for benchmarks. They train demonstration teachers and measure students; no distillation sees them.

MNIST and Fashion-MNIST are padded from 28 to 32 pixels, not resized; CIFAR-10 is read from mosaics of images; letters
are drawn with the system's fonts. The first three are normalised with the usual mean and deviation of their training
images, letters from -1 to 1.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.drawn import letters
from benchmarks.drawn.fonts import system_fonts

PAD = 2
SIDE = 32
MOSAIC = 50  # images along a side of a CIFAR-10 sheet
DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int = SIDE

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, height, width."""
        return self.channels, self.side, self.side


NORMALISATIONS = {
    "mnist": Normalisation((0.1307,), (0.3081,)),
    "fashion_mnist": Normalisation((0.2860,), (0.3530,)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "letters": Normalisation((0.5,), (0.5,), letters.SIDE),
}


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Holds normalised images (N, C, H, W) and their labels (N,)."""

    images: Tensor
    labels: Tensor


def load_images(name: str, split: str) -> LabelledImages:
    """Return the "train" or "test" images of a data set in DFKD_BENCHMARK_DATA or ../shared/data, or those drawn."""
    directory = Path(os.environ.get("DFKD_BENCHMARK_DATA", DEFAULT_DIRECTORY))
    if name == "letters":
        pixels, labels = letters.letters(split, system_fonts())
    elif not directory.is_dir():
        raise FileNotFoundError(f"there is no {directory}; DFKD_BENCHMARK_DATA names the folder of {name}")
    elif name == "cifar10":
        pixels, labels = _colour(directory / name, split)
    else:
        pixels, labels = _grey(directory / f"{name}.npz", split)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in _moments(name))
    images = (torch.from_numpy(pixels).float() / 255 - mean) / std
    return LabelledImages(images=images, labels=torch.from_numpy(labels))


def _moments(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return NORMALISATIONS[name].mean, NORMALISATIONS[name].std


def _grey(path: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    with np.load(path) as stored:
        pixels, labels = stored[f"x_{split}"], stored[f"y_{split}"]
    return np.pad(pixels, ((0, 0), (PAD, PAD), (PAD, PAD)))[:, None], labels


def _colour(directory: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    from PIL import Image

    with np.load(directory / "labels.npz") as stored:
        labels = stored[f"y_{split}"]
    sheets = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(directory.glob(f"{split}_*"))]
    tiles = [sheet.reshape(MOSAIC, SIDE, MOSAIC, SIDE, 3).transpose(0, 2, 4, 1, 3) for sheet in sheets]
    return np.ascontiguousarray(np.concatenate([tile.reshape(-1, 3, SIDE, SIDE) for tile in tiles])), labels
