"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016, arXiv:1605.07146): pre-activation blocks in CIFAR form.

WRN-d-k has n = (d - 4) / 6 blocks in each of three groups of 16k, 32k and 64k channels. A shortcut that changes the
shape is a 1×1 convolution of the *pre-activated* input. The width multiplier scales the stem too, so `wrn_16_1` at
width 2 differs from `wrn_16_2`, whose stem has 16 channels.
Parameters: conv1, blockG.layer.B.{bn1, conv1, bn2, conv2, convShortcut}, bn1, fc.
"""

from functools import partial

from dfkd_core.architectures.family import Architecture, Fit, Option
from dfkd_core.architectures.layers import (
    BatchNorm,
    Chain,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initialiser,
    Linear,
    Named,
    ReLU,
    Residual,
    Sequential,
)

PAPER = "Zagoruyko & Komodakis, Wide Residual Networks, BMVC 2016, arXiv:1605.07146"
HE = Initialiser.HE_NORMAL
OPTIONS = {"dropout": Option(0.0, 0.0, 1.0, "Probability of dropping a value between a block's two convolutions.")}


def wrn(fit: Fit, *, depth: int, widening: int) -> Chain:
    """Return the layers from images (C, H, W) to logits: stem, three groups, batch norm, global pooling, linear."""
    stem, last = fit.channels(16), fit.channels(64 * widening)
    return (
        ("conv1", Conv(fit.input_shape[0], stem, kernel=3, padding=1, init=HE)),
        *_groups(fit, count=(depth - 4) // 6, widening=widening),
        ("bn1", BatchNorm(last)),
        ("relu", ReLU()),
        ("pool", GlobalAvgPool()),
        ("flatten", Flatten()),
        ("fc", Linear(last, fit.num_classes, init=Initialiser.UNIFORM_ZERO_BIAS)),
    )


def _groups(fit: Fit, *, count: int, widening: int) -> list[Named]:
    groups: list[Named] = []
    channels, dropout = fit.channels(16), fit.options["dropout"]
    for number, base in enumerate((16, 32, 64), start=1):
        blocks: list[Named] = []
        for index in range(count):
            stride = 2 if number > 1 and index == 0 else 1
            outputs = fit.channels(base * widening)
            blocks.append((str(index), _block(channels, outputs, stride=stride, dropout=dropout)))
            channels = outputs
        groups.append((f"block{number}", Sequential((("layer", Sequential(tuple(blocks))),))))
    return groups


def _block(inputs: int, outputs: int, *, stride: int, dropout: float) -> Residual:
    activation: Chain = (("bn1", BatchNorm(inputs)), ("relu1", ReLU()))
    body: Chain = (
        ("conv1", Conv(inputs, outputs, kernel=3, stride=stride, padding=1, init=HE)),
        ("bn2", BatchNorm(outputs)),
        ("relu2", ReLU()),
        *((("dropout", Dropout(dropout)),) if dropout else ()),
        ("conv2", Conv(outputs, outputs, kernel=3, padding=1, init=HE)),
    )
    if inputs == outputs and stride == 1:
        return Residual(activation + body)
    projection = Conv(inputs, outputs, kernel=1, stride=stride, init=HE)
    return Residual(body, before=activation, shortcut=(("convShortcut", projection),))


ARCHITECTURES = tuple(
    Architecture(
        name=f"wrn_{depth}_{widening}",
        family="wrn",
        paper=PAPER,
        form=f"CIFAR form, 3 groups of {(depth - 4) // 6} pre-activation blocks, "
        f"{'/'.join(str(base * widening) for base in (16, 32, 64))} channels",
        layers=partial(wrn, depth=depth, widening=widening),
        options=OPTIONS,
    )
    for depth, widening in ((16, 1), (16, 2), (40, 1), (40, 2))
)
