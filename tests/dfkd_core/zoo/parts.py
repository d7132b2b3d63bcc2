"""Blocks that several networks of the zoo share: 16 x 16 images, 10 classes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

SHAPE = (3, 16, 16)
NUM_CLASSES = 10


def conv_bn(inputs: int, outputs: int, act: type[nn.Module] | None = nn.ReLU, **options: int) -> nn.Sequential:
    """Convolution, BatchNorm and, if any, an activation."""
    size = options.pop("kernel", 3)
    layers = [nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act()] if act else []))


def head(channels: int) -> list[nn.Module]:
    """Pooling over the whole image, then the classifier."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, NUM_CLASSES)]


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole image holds."""

    def __init__(self, channels: int, gate: Callable[[Tensor], Tensor], act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate, self.act = gate, act

    def forward(self, images: Tensor) -> Tensor:
        pooled = images.mean((2, 3), keepdim=True)
        return images * self.gate(self.expand(self.act(self.reduce(pooled))))


class Parallel(nn.Module):
    """Branches side by side, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([branch(images) for branch in self.branches], 1)


class Plus(nn.Module):
    """A body and its shortcut, added up."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut or nn.Identity(), act or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.body(images) + self.shortcut(images))
