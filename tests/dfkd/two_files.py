"""ONNX models in two files, as PyTorch's default exporter writes them."""

import warnings
from pathlib import Path

import torch
from torch import nn


def network(classes: int = 10) -> nn.Module:
    """Return a small classifier of 1 × 32 × 32 images, too large for `lenet5_half` to be no smaller."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(6), nn.Flatten()),
        *(nn.Linear(8 * 36, 80), nn.ReLU(), nn.Linear(80, classes)),
    ).eval()


def export_in_two_files(path: Path) -> Path:
    """Write `path` and `path`.data with the defaults of PyTorch's exporter; return `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            network(),
            (torch.zeros(2, 1, 32, 32),),
            str(path),
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    return path
