"""ResNets for images of 224 pixels (He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016,
https://arxiv.org/abs/1512.03385), untrained: teachers of the size that people have.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from dfkd_core.exporting.onnx_writers import WRITERS, write_onnx
from dfkd_core.images.procedural import procedural_images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, CLASSES = 224, 10
DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
EXPANSION = {18: 1, 50: 4}


class Block(nn.Module):
    """A residual block: two 3 × 3 convolutions, or a 3 × 3 between two 1 × 1 convolutions."""

    def __init__(self, channels: int, width: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        out = expansion * width
        if expansion == 1:
            layers = [*_conv(channels, width, 3, stride), nn.ReLU(), *_conv(width, out, 3, 1)]
        else:
            layers = [*_conv(channels, width, 1, 1), nn.ReLU(), *_conv(width, width, 3, stride), nn.ReLU()]
            layers += _conv(width, out, 1, 1)
        self.body = nn.Sequential(*layers)
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(channels, out, 1, stride))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the sum of both branches behind a rectifier."""
        return (self.body(maps) + self.shortcut(maps)).relu()


def _conv(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out)]


def resnet(depth: int, *, num_classes: int = CLASSES) -> nn.Sequential:
    """Return a ResNet-18 or a ResNet-50 with random weights."""
    expansion, channels = EXPANSION[depth], 64
    layers: list[nn.Module] = [*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    for stage, blocks in enumerate(DEPTHS[depth]):
        for block in range(blocks):
            width, stride = 64 * 2**stage, 2 if stage and not block else 1
            layers.append(Block(channels, width, expansion=expansion, stride=stride))
            channels = expansion * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def write_teacher(depth: int, path: Path) -> None:
    """Write the network as an ONNX file with its BatchNorms, whose statistics are those of procedural images."""
    torch.manual_seed(0)
    network, generator = resnet(depth).train(), torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        for _ in range(4):
            network((procedural_images((3, SIDE, SIDE), 8, generator=generator) - mean) / std)
        network[-1].weight.mul_(8)  # so that the classes differ
    write_onnx(WRITERS[0], network.eval(), torch.zeros(2, 3, SIDE, SIDE), path, opset=18, fixed=False)
