"""Nets for phones: MobileNets, MNASNet-like, EfficientNet, ShuffleNets, GhostNet."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.dfkd_core.zoo.parts import NUM_CLASSES, Plus, SqueezeExcite, conv_bn, head


def mobilenet_v1() -> nn.Module:
    """Depthwise separable convolutions in a row."""

    def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [*conv_bn(inputs, inputs, stride=stride, groups=inputs), *conv_bn(inputs, outputs, kernel=1)]

    return nn.Sequential(conv_bn(3, 8, stride=2), *separable(8, 16, 1), *separable(16, 32, 2), *head(32))


class Inverted(nn.Module):
    """The inverted residual of MobileNetV2/V3 and EfficientNet."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: type[nn.Module], excite: nn.Module | None) -> None:
        super().__init__()
        hidden = inputs * 3
        layers = [conv_bn(inputs, hidden, act, kernel=1), conv_bn(hidden, hidden, act, stride=stride, groups=hidden)]
        self.body = nn.Sequential(*layers, excite or nn.Identity(), conv_bn(hidden, outputs, None, kernel=1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        return images + self.body(images) if self.residual else self.body(images)


def mobilenet_v2() -> nn.Module:
    blocks = [Inverted(8, 8, 1, nn.ReLU6, None), Inverted(8, 12, 2, nn.ReLU6, None)]
    last = [conv_bn(12, 32, nn.ReLU6, kernel=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(conv_bn(3, 8, nn.ReLU6, stride=2), *blocks, *last, nn.Linear(32, NUM_CLASSES))


def mobilenet_v3() -> nn.Module:
    def squeeze() -> nn.Module:
        return SqueezeExcite(24, F.hardsigmoid, F.relu)

    blocks = [Inverted(8, 8, 1, nn.ReLU, squeeze()), Inverted(8, 12, 2, nn.Hardswish, squeeze())]
    last = [conv_bn(12, 32, nn.Hardswish, kernel=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    classifier = [nn.Linear(32, 24), nn.Hardswish(), nn.Linear(24, NUM_CLASSES)]
    return nn.Sequential(conv_bn(3, 8, nn.Hardswish, stride=2), *blocks, *last, *classifier)


def efficientnet() -> nn.Module:
    blocks = [Inverted(8, 8, 1, nn.SiLU, SqueezeExcite(24, torch.sigmoid, F.silu)), Inverted(8, 12, 2, nn.SiLU, None)]
    last = [conv_bn(12, 32, nn.SiLU, kernel=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    return nn.Sequential(conv_bn(3, 8, nn.SiLU, stride=2), *blocks, *last, nn.Linear(32, NUM_CLASSES))


class SamePadding(nn.Conv2d):
    """A convolution that pads as TensorFlow does, from the size of its input: more below and on the right."""

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows = max((-(-height // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - height, 0)
        columns = max((-(-width // self.stride[1]) - 1) * self.stride[1] + self.kernel_size[1] - width, 0)
        padded = F.pad(images, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self._conv_forward(padded, self.weight, self.bias)


def same_padding() -> nn.Module:
    """EfficientNet as it was carried over from TensorFlow."""
    layers = [SamePadding(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.SiLU()]
    layers += [SamePadding(8, 8, 5, stride=2, groups=8, bias=False), nn.BatchNorm2d(8), nn.SiLU()]
    return nn.Sequential(*layers, conv_bn(8, 16, nn.SiLU, kernel=1), *head(16))


def shuffled(images: Tensor, groups: int) -> Tensor:
    """Channels dealt out over the groups."""
    batch, channels, height, width = images.shape
    grouped = images.view(batch, groups, channels // groups, height, width).transpose(1, 2).contiguous()
    return grouped.view(batch, channels, height, width)


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: split, transform one half, join, shuffle the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            conv_bn(half, half, kernel=1), conv_bn(half, half, None, groups=half), conv_bn(half, half, kernel=1)
        )

    def forward(self, images: Tensor) -> Tensor:
        kept, changed = images.chunk(2, dim=1)
        return shuffled(torch.cat([kept, self.body(changed)], 1), 2)


def shufflenet() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), nn.MaxPool2d(3, 2, 1), Shuffle(8), Shuffle(8), *head(8))


class GroupedShuffle(nn.Module):
    """ShuffleNetV1's unit: grouped 1 x 1, shuffle, depthwise, grouped 1 x 1, and a pooled shortcut."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        hidden = outputs // 2
        self.groups = groups
        self.first = conv_bn(inputs, hidden, kernel=1, groups=groups)
        self.depthwise = conv_bn(hidden, hidden, None, stride=2, groups=hidden)
        self.last = conv_bn(hidden, outputs - inputs, None, kernel=1, groups=groups)

    def forward(self, images: Tensor) -> Tensor:
        changed = self.last(self.depthwise(shuffled(self.first(images), self.groups)))
        return F.relu(torch.cat([F.avg_pool2d(images, 3, 2, 1), changed], 1))


def shufflenet_v1() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), GroupedShuffle(8, 24, 4), *head(24))


class Ghost(nn.Module):
    """Half of the channels from a convolution, the other half cheaply from the first."""

    def __init__(self, inputs: int, outputs: int, act: type[nn.Module] | None = nn.ReLU) -> None:
        super().__init__()
        made = -(-outputs // 2)
        self.outputs = outputs
        self.primary, self.cheap = conv_bn(inputs, made, act, kernel=1), conv_bn(made, made, act, groups=made)

    def forward(self, images: Tensor) -> Tensor:
        primary = self.primary(images)
        return torch.cat([primary, self.cheap(primary)], 1)[:, : self.outputs]


def ghostnet() -> nn.Module:
    def gate(values: Tensor) -> Tensor:
        return F.relu6(values + 3.0) / 6.0

    def excite(channels: int) -> nn.Module:
        return SqueezeExcite(channels, gate, F.relu)

    first = Plus(nn.Sequential(Ghost(8, 24), excite(24), Ghost(24, 8, None)))
    down = [Ghost(8, 19), *conv_bn(19, 19, None, stride=2, groups=19), excite(19), Ghost(19, 12, None)]
    return nn.Sequential(conv_bn(3, 8, stride=2), first, *down, *head(12))
