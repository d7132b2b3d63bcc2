"""MobileNetV2 (Sandler et al., CVPR 2018, arXiv:1801.04381) in CIFAR form: a stem of stride 1 and global pooling.

Hidden channel counts are rounded to multiples of 8 as published, and the last one is at least 1280.
Parameters: features.0.{0, 1}, features.B.conv.…, features.18.{0, 1}, classifier (torchvision names it classifier.1).
"""

from dfkd_core.architectures.family import Architecture, Fit, Option
from dfkd_core.architectures.layers import (
    BatchNorm,
    Chain,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initialiser,
    Layer,
    Linear,
    ReLU6,
    Residual,
    Sequential,
)

PAPER = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381"
OPTIONS = {"dropout": Option(0.2, 0.0, 1.0, "Probability of dropping a feature in front of the classifier.")}
# (expansion, channels, blocks, stride of the first block), from Table 2 of the paper
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenetv2(fit: Fit) -> Chain:
    """Return stem, 17 inverted residual blocks (four of stride 2), 1×1 convolution, global pooling and classifier."""
    channels, last = _eights(32 * fit.width), _eights(1280 * max(1.0, fit.width))
    layers: list[Layer] = [_unit(fit.input_shape[0], channels, kernel=3)]
    for expansion, base, blocks, stride in ROWS:
        for index in range(blocks):
            outputs = _eights(base * fit.width)
            layers.append(_block(channels, outputs, expansion=expansion, stride=stride if index == 0 else 1))
            channels = outputs
    layers.append(_unit(channels, last, kernel=1))
    return (
        ("features", _numbered(*layers)),
        ("pool", GlobalAvgPool()),
        ("flatten", Flatten()),
        ("dropout", Dropout(fit.options["dropout"])),
        ("classifier", Linear(last, fit.num_classes, init=Initialiser.SMALL_NORMAL)),
    )


def _block(inputs: int, outputs: int, *, expansion: int, stride: int) -> Layer:
    hidden = inputs * expansion
    widen = (_unit(inputs, hidden, kernel=1),) if expansion != 1 else ()
    narrow = (Conv(hidden, outputs, kernel=1, init=Initialiser.HE_NORMAL), BatchNorm(outputs))
    body: Chain = (("conv", _numbered(*widen, _unit(hidden, hidden, kernel=3, stride=stride, groups=hidden), *narrow)),)
    return Residual(body) if stride == 1 and inputs == outputs else Sequential(body)


def _unit(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> Sequential:
    conv = Conv(
        inputs,
        outputs,
        kernel=kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        init=Initialiser.HE_NORMAL,
    )
    return _numbered(conv, BatchNorm(outputs), ReLU6())


def _numbered(*layers: Layer) -> Sequential:
    return Sequential(tuple((str(index), layer) for index, layer in enumerate(layers)))


def _eights(count: float) -> int:
    """Return the nearest multiple of 8 that is at least 8 and at least 0.9 · `count`."""
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count else rounded


ARCHITECTURES = (
    Architecture(
        name="mobilenetv2",
        family="mobilenetv2",
        paper=PAPER,
        form="CIFAR form: stem of stride 1, 17 inverted residual blocks, four halvings, dropout 0.2",
        layers=mobilenetv2,
        options=OPTIONS,
    ),
)
