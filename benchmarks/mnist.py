"""MNIST for benchmarks: for training the demonstration teacher and for measuring students, never for distilling.

Images are padded from 28 to 32 pixels, not resized, and normalised with the usual mean and deviation.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MEAN, STD = 0.1307, 0.3081
PAD = 2
DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (N, 1, 32, 32), normalised, and labels (N,)."""

    images: Tensor
    labels: Tensor


def load_mnist(split: str) -> Digits:
    """The "train" (60 000) or "test" (10 000) images from mnist.npz in DFKD_BENCHMARK_DATA or ../shared/data."""
    directory = Path(os.environ.get("DFKD_BENCHMARK_DATA", DEFAULT_DIRECTORY))
    with np.load(directory / "mnist.npz") as stored:
        pixels, labels = stored[f"x_{split}"], stored[f"y_{split}"]
    padded = np.pad(pixels, ((0, 0), (PAD, PAD), (PAD, PAD)))
    images = (torch.from_numpy(padded).float().unsqueeze(1) / 255 - MEAN) / STD
    return Digits(images=images, labels=torch.from_numpy(labels))
