"""The ways in which a PyTorch network is exported, and what it says itself: for the packages of PyTorch's family.

It imports nothing of this project. Where torchvision is beside a CPU build of PyTorch, its operators are declared
first: the build for CUDA cannot be imported otherwise.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.zoo import shelf

CLASSES = 10
BATCHES = (1, 2, 5)
LARGE = 160  # images of this size or more are compared in threes only

if importlib.util.find_spec("torchvision") is not None and not torch.cuda.is_available():
    _declared = torch.library.Library("torchvision", "DEF")  # alive as long as the module
    _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@dataclass(frozen=True)
class Way:
    """One way to export."""

    dynamo: bool
    batch: int | None = None  # None: dynamic
    keep: bool = False  # BatchNormalization is kept: the exporter neither folds nor optimises


WAYS = {
    "dynamo": Way(dynamo=True),
    "dynamo-1": Way(dynamo=True, batch=1),
    "dynamo-kept": Way(dynamo=True, keep=True),
    "legacy": Way(dynamo=False),
    "legacy-1": Way(dynamo=False, batch=1),
    "legacy-kept": Way(dynamo=False, keep=True),
}
REAL = ("dynamo", "legacy", "legacy-kept")  # the ways of nets of real size


class Logits(nn.Module):
    """The logits alone, of a network that returns them among other things."""

    def __init__(self, model: nn.Module, pick: Callable[[object], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.pick = pick

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.pick(self.model(pixel_values))


def randomised(model: nn.Module) -> nn.Module:
    """Return the model with weights that keep its signals alive; fresh ones differ by family, down to 1e-6."""
    generator = torch.Generator().manual_seed(0)

    def normal(tensor: Tensor, mean: float, deviation: float) -> None:
        tensor.copy_(mean + deviation * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or tensor.dim() == 0:
                continue
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif isinstance(tensor, nn.Parameter) and tensor.dim() > 1:
                normal(tensor, 0.0, 1 / math.sqrt(tensor[0].numel()))
            elif isinstance(tensor, nn.Parameter) or name.endswith("running_mean"):
                normal(tensor, 0.0 if name.endswith(("bias", "running_mean")) else 1.0, 0.1)
    return model


def measured(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Return the model with the BatchNorm statistics that some images have, in eval mode.

    With fresh statistics the signal of deep nets (MobileNetV2, EfficientNet, LeViT) ends below the rounding of float32.
    What BatchNorm returns is shifted by its deviation, so that most ReLUs pass it: around zero, random nets are
    chaotic, and the rounding of float32 grows by a fifth with each layer.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the mean over all forward passes
        norm.reset_running_stats()
        norm.train()
        if norm.affine:
            norm.bias.detach().add_(norm.weight.detach())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(2 if norms else 0):
            model(torch.randn(8, *shape, generator=generator))
    for norm in norms:
        norm.momentum = 0.1
        norm.running_var.clamp_(min=0.1 * float(norm.running_var.mean()))  # a channel that is dead is not amplified
    return model.eval()


class Family(Protocol):
    """A net of a package; its images are (N, 3, size, size)."""

    @property
    def size(self) -> int:
        """Pixels along each side of an image."""

    def build(self) -> nn.Module:
        """Return the network from images to logits, in eval mode."""


def serve(doc: str | None, families: Mapping[str, Family], real: Mapping[str, Family]) -> None:
    """Run the command line of an exporter; nets of real size, and others of large images, are exported in few ways."""
    every = {**families, **real}
    few = {name for name, family in families.items() if family.size >= LARGE} | {*real}

    def write_one(name: str, way: str, path: Path) -> None:
        family = every[name]
        write(family.build(), (3, family.size, family.size), WAYS[way], path)

    shelf.serve(doc, {name: REAL if name in few else tuple(WAYS) for name in every}, write_one)


def write(net: nn.Module, shape: tuple[int, int, int], way: Way, path: Path) -> None:
    """Export the net, and keep what it says beside the file."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    export(net, torch.randn(way.batch or 2, *shape), path, way)
    np.savez(shelf.beside(path, ".npz"), **answers(net, shape))


def export(net: nn.Module, images: Tensor, path: Path, way: Way) -> None:
    """Write the network; a dynamic batch is called `batch`."""
    if way.dynamo:
        torch.onnx.export(
            net,
            (images,),
            path,
            dynamo=True,
            optimize=not way.keep,
            external_data=False,
            verbose=False,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes=None if way.batch else ({0: torch.export.Dim("batch")},),
        )
    else:
        torch.onnx.export(
            net,
            (images,),
            path,
            dynamo=False,
            do_constant_folding=not way.keep,
            training=torch.onnx.TrainingMode.PRESERVE if way.keep else torch.onnx.TrainingMode.EVAL,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes=None if way.batch else {"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
        )


def answers(net: nn.Module, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Return logits and gradients of the network itself, for every batch size: what a reading is compared with."""
    found = {}
    for count in (3,) if shape[-1] >= LARGE else BATCHES:
        generator = torch.Generator().manual_seed(count)
        images = torch.randn(count, *shape, generator=generator, requires_grad=True)
        logits = net(images)
        weights = torch.randn(logits.shape, generator=generator)
        # Twice each image: of a single one PyTorch 2.13 computes a wrong gradient in LeViT, off its finite difference.
        twice = net(torch.cat([images, images]))[:count]
        (gradient,) = torch.autograd.grad((twice * weights).sum(), images)
        arrays = {"images": images, "logits": logits, "weights": weights, "gradient": gradient}
        found |= {f"{name}{count}": tensor.detach().numpy() for name, tensor in arrays.items()}
    return found
