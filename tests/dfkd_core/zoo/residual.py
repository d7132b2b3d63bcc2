"""Nets with shortcuts: ResNets of several forms, wide ResNet, ResNeXt, DenseNet, RepVGG, dual paths."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.dfkd_core.zoo.parts import NUM_CLASSES, Plus, SqueezeExcite, conv_bn, head


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(inputs, outputs, stride=stride), *conv_bn(outputs, outputs, act=None))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, act=None, kernel=1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.body(images) + self.shortcut(images))


def resnet8() -> nn.Module:
    blocks = [Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 32, 2)]
    return nn.Sequential(*conv_bn(3, 8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, NUM_CLASSES))


def bottleneck(inputs: int, outputs: int, stride: int, *, groups: int = 1, excite: bool = False) -> nn.Module:
    """1 x 1, 3 x 3 in groups, 1 x 1; the shortcut pools first, as in ResNet-D."""
    hidden = outputs // 2
    layers = [*conv_bn(inputs, hidden, kernel=1), *conv_bn(hidden, hidden, stride=stride, groups=groups)]
    layers += conv_bn(hidden, outputs, None, kernel=1)
    layers += [SqueezeExcite(outputs, torch.sigmoid, F.relu)] if excite else []
    pooled = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if stride > 1 else []
    shortcut = None if inputs == outputs else nn.Sequential(*pooled, *conv_bn(inputs, outputs, None, kernel=1))
    return Plus(nn.Sequential(*layers), shortcut, nn.ReLU(inplace=True))


def resnet_bottleneck() -> nn.Module:
    stem = [*conv_bn(3, 8, kernel=7, stride=2), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, bottleneck(8, 16, 1), bottleneck(16, 32, 2), bottleneck(32, 32, 1), *head(32))


def resnext() -> nn.Module:
    blocks = [bottleneck(8, 16, 1, groups=4), bottleneck(16, 32, 2, groups=4)]
    return nn.Sequential(conv_bn(3, 8), *blocks, *head(32))


def se_resnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8), bottleneck(8, 16, 2, excite=True), bottleneck(16, 16, 1, excite=True), *head(16)
    )


class PreActivation(nn.Module):
    """BatchNorm and ReLU before each convolution; the shortcut starts behind the first pair."""

    def __init__(self, inputs: int, outputs: int, stride: int, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.drop = drop
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(images))
        kept = images if self.shortcut is None else self.shortcut(hidden)
        hidden = F.relu(self.norm2(self.conv1(hidden)))
        return kept + self.conv2(F.dropout(hidden, self.drop, self.training))


def preact_resnet() -> nn.Module:
    blocks = [PreActivation(8, 8, 1), PreActivation(8, 16, 2), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *blocks, *head(16))


class WideResNet(nn.Module):
    """WRN-10-2 as its authors write it: an average pool of a fixed size and a view."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [PreActivation(8, 16, 1, 0.3), PreActivation(16, 32, 2, 0.3), PreActivation(32, 64, 2, 0.3)]
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *blocks)
        self.norm, self.classifier = nn.BatchNorm2d(64), nn.Linear(64, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.avg_pool2d(F.relu(self.norm(self.body(images))), 4)
        return self.classifier(hidden.view(-1, 64))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, self.conv(F.relu(self.norm(images)))], 1)


def densenet() -> nn.Module:
    dense = [DenseLayer(8, 4), DenseLayer(12, 4)]
    transition = [nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2)]
    last = [nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(1), nn.Linear(12, NUM_CLASSES)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *dense, *transition, DenseLayer(8, 4), *last)


class RepVGGBlock(nn.Module):
    """The training form: 3 x 3, 1 x 1 and identity branches, each with its BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.wide = conv_bn(inputs, outputs, None, stride=stride)
        self.narrow = conv_bn(inputs, outputs, None, kernel=1, stride=stride)
        self.same = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, images: Tensor) -> Tensor:
        added = self.wide(images) + self.narrow(images)
        return F.relu(added if self.same is None else added + self.same(images))


def repvgg() -> nn.Module:
    return nn.Sequential(RepVGGBlock(3, 8, 2), RepVGGBlock(8, 8, 1), RepVGGBlock(8, 16, 2), *head(16))
