"""VGG with batch normalisation in the CIFAR form of the distillation literature (Simonyan & Zisserman, ICLR 2015).

The network has five blocks of 3×3 convolutions. Max-pooling follows the first three blocks, and the fourth too if both
sides of the image have 64 pixels or more. Global pooling and one linear layer replace the three of the ImageNet form.
Parameters: features.N (one count over all layers of the features), classifier.
"""

from functools import partial

from dfkd_core.architectures.family import Architecture, Fit
from dfkd_core.architectures.layers import (
    BatchNorm,
    Chain,
    Conv,
    Flatten,
    GlobalAvgPool,
    Initialiser,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    Sequential,
)
from dfkd_core.errors import StudentError

PAPER = "Simonyan & Zisserman, Very Deep Convolutional Networks, ICLR 2015, arXiv:1409.1556"
CHANNELS = (64, 128, 256, 512, 512)
SMALLEST_SIDE = 8  # three halvings


def vgg(fit: Fit, *, convolutions: tuple[int, ...]) -> Chain:
    """Return the layers from images (C, H, W) to logits.

    Raises:
        StudentError: a side of the images is below 8.
    """
    _, height, width = fit.input_shape
    if min(height, width) < SMALLEST_SIDE:
        raise StudentError(
            f"VGG halves the image three times and takes {SMALLEST_SIDE}×{SMALLEST_SIDE} or more, not {height}×{width}",
            hint="Choose a residual network: those take any size.",
        )
    pooled = 4 if min(height, width) >= 64 else 3
    features = _features(fit, convolutions, pooled=pooled)
    return (
        ("features", Sequential(tuple((str(index), layer) for index, layer in enumerate(features)))),
        ("pool", GlobalAvgPool()),
        ("flatten", Flatten()),
        ("classifier", Linear(fit.channels(CHANNELS[-1]), fit.num_classes, init=Initialiser.SMALL_NORMAL)),
    )


def _features(fit: Fit, convolutions: tuple[int, ...], *, pooled: int) -> list[Layer]:
    layers: list[Layer] = []
    inputs = fit.input_shape[0]
    for number, (base, count) in enumerate(zip(CHANNELS, convolutions, strict=True)):
        outputs = fit.channels(base)
        for _ in range(count):
            conv = Conv(inputs, outputs, kernel=3, padding=1, bias=True, init=Initialiser.HE_NORMAL)
            layers += [conv, BatchNorm(outputs), ReLU()]
            inputs = outputs
        if number < pooled:
            layers.append(MaxPool(2))
    return layers


ARCHITECTURES = tuple(
    Architecture(
        name=name,
        family="vgg",
        paper=PAPER,
        form=f"CIFAR form with batch norm, blocks of {'/'.join(map(str, counts))} convolutions, one linear layer",
        layers=partial(vgg, convolutions=counts),
    )
    for name, counts in {"vgg8": (1, 1, 1, 1, 1), "vgg11": (1, 1, 2, 2, 2)}.items()
)
