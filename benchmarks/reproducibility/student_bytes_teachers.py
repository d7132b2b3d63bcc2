"""The teachers of `student_bytes`: small, seeded and briefly trained on noisy prototypes."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.onnx import TrainingMode

TRAINING_STEPS = 80


def make_teachers(directory: Path, *, threads: int) -> dict[str, Path]:
    """Name → ONNX file. Files that are there already are left as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    kinds = {
        "grey_bn": (1, 16),
        "grey_folded": (1, 16),
        "colour_bn": (3, 16),
        "colour_folded": (3, 16),
        "lenet": (1, 32),
    }
    for seed, (name, (channels, side)) in enumerate(kinds.items()):
        path = directory / f"{name}.onnx"
        if not path.exists():
            _export_teacher(path, channels, side, seed=seed, threads=threads, kind=name.rpartition("_")[2])
    return {name: directory / f"{name}.onnx" for name in kinds}


def _export_teacher(path: Path, channels: int, side: int, *, seed: int, threads: int, kind: str) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    net = nn.Sequential(*_layers(channels, side, normalised=kind != "lenet"))
    prototypes = torch.randn(10, channels, side, side)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(TRAINING_STEPS):
        classes = torch.randint(10, (64,))
        images = prototypes[classes] + 0.7 * torch.randn(64, channels, side, side)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(net(images), classes))
        optimizer.step()
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, channels, side, side),),
            str(path),
            dynamo=False,
            opset_version=17,
            training=TrainingMode.PRESERVE if kind == "bn" else TrainingMode.EVAL,
            do_constant_folding=kind != "bn",
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        )


def _layers(channels: int, side: int, *, normalised: bool) -> Iterator[nn.Module]:
    """Two convolutions with a pooling after each, and two linear layers."""
    for before, after in (channels, 12), (12, 16):
        yield nn.Conv2d(before, after, 3, padding=1, bias=not normalised)
        if normalised:
            yield nn.BatchNorm2d(after)
        yield nn.ReLU()
        yield nn.MaxPool2d(2)
    yield nn.Flatten()
    yield nn.Linear(16 * (side // 4) ** 2, 48)
    yield nn.ReLU()
    yield nn.Linear(48, 10)
