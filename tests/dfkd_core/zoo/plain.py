"""Nets without shortcuts: LeNet, AlexNet, VGG, All-CNN, Network in Network, SqueezeNet, Inception."""

import torch.nn.functional as F
from torch import Tensor, nn

from tests.dfkd_core.zoo.parts import NUM_CLASSES, Parallel, conv_bn, head


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 8, 3)
        self.fc1, self.fc2 = nn.Linear(32, 16), nn.Linear(16, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.relu(self.conv1(images)), 2)  # (N, 6, 6, 6)
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)  # (N, 8, 2, 2)
        hidden = hidden.view(hidden.size(0), -1)
        return self.fc2(F.relu(self.fc1(hidden)))


def tanh_lenet() -> nn.Module:
    """The net of 1998: tanh, sub-sampling by averages."""
    features = [nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.AvgPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, NUM_CLASSES))


def alexnet() -> nn.Module:
    """Local response normalisation, overlapping pools, convolutions in two groups."""
    first = [nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.LocalResponseNorm(5, 1e-2), nn.MaxPool2d(3, 2)]
    second = [nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)]
    dense = [nn.Flatten(), nn.Dropout(), nn.Linear(108, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, NUM_CLASSES)]
    return nn.Sequential(*first, *second, *dense)


def vgg() -> nn.Module:
    features = [conv_bn(3, 8), nn.MaxPool2d(2), conv_bn(8, 16), nn.MaxPool2d(2, ceil_mode=True), conv_bn(16, 16)]
    pooled = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 24), nn.ReLU(inplace=True)]
    return nn.Sequential(*features, *pooled, nn.Dropout(0.3), nn.Linear(24, NUM_CLASSES))


def all_cnn() -> nn.Module:
    """Strides in the place of pools; the last convolution gives the logits."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Dropout(0.5)]
    logits = [nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, NUM_CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *logits)


def nin() -> nn.Module:
    """Network in Network: a small perceptron at every pixel."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        perceptron = [nn.Conv2d(outputs, outputs, 1), nn.ReLU(), nn.Conv2d(outputs, outputs, 1), nn.ReLU()]
        return [nn.Conv2d(inputs, outputs, 5, padding=2), nn.ReLU(), *perceptron]

    pooled = [nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5)]
    return nn.Sequential(*block(3, 8), *pooled, *block(8, NUM_CLASSES), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def squeezenet() -> nn.Module:
    def fire(inputs: int, squeezed: int, expanded: int) -> list[nn.Module]:
        wide = nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU())
        narrow = nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU())
        return [nn.Conv2d(inputs, squeezed, 1), nn.ReLU(), Parallel(narrow, wide)]

    stem = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True)]
    logits = [nn.Dropout(0.5), nn.Conv2d(16, NUM_CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(1)]
    return nn.Sequential(*stem, *fire(8, 4, 6), *fire(12, 4, 8), *logits)


def inception() -> nn.Module:
    """Branches of several kernels, asymmetric ones among them, and a pooling branch."""
    asymmetric = [
        nn.Conv2d(8, 4, (1, 5), padding=(0, 2)),
        nn.ReLU(),
        nn.Conv2d(4, 4, (5, 1), padding=(2, 0)),
        nn.ReLU(),
    ]
    mixed = Parallel(
        conv_bn(8, 4, kernel=1),
        nn.Sequential(*conv_bn(8, 4, kernel=1), *conv_bn(4, 6)),
        nn.Sequential(*asymmetric),
        nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), *conv_bn(8, 4, kernel=1)),
    )
    shrunk = Parallel(conv_bn(18, 8, stride=2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(conv_bn(3, 8, stride=2), mixed, shrunk, *head(26))
