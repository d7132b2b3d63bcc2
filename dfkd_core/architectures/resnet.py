"""Residual networks in CIFAR form (He et al., CVPR 2016, arXiv:1512.03385): a 3×3 stem, no max-pool, basic blocks.

If a block changes the shape, its shortcut is a 1×1 convolution with batch normalisation. The pooling is global, so the
network takes images of any size; on 32×32 images it equals the fixed pooling of the published code.
Parameters: conv1, bn1, layerS.B.{conv1, bn1, conv2, bn2, shortcut.0, shortcut.1}, linear.
"""

from dataclasses import dataclass
from functools import partial

from dfkd_core.architectures.family import Architecture, Fit
from dfkd_core.architectures.layers import (
    BatchNorm,
    Chain,
    Conv,
    Flatten,
    GlobalAvgPool,
    Initialiser,
    Linear,
    Named,
    ReLU,
    Residual,
    Sequential,
)

PAPER = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385"


@dataclass(frozen=True, slots=True)
class ResNetPlan:
    """Channels and number of blocks of each stage. Every stage except the first halves the image's sides."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    init: Initialiser


PLANS = {
    "resnet8": ResNetPlan((16, 32, 64), (1, 1, 1), Initialiser.HE_NORMAL),
    "resnet14": ResNetPlan((16, 32, 64), (2, 2, 2), Initialiser.HE_NORMAL),
    "resnet20": ResNetPlan((16, 32, 64), (3, 3, 3), Initialiser.HE_NORMAL),
    # ResNet-18 and ResNet-34 use PyTorch's initialisation, as in the code released with the replay papers.
    "resnet18": ResNetPlan((64, 128, 256, 512), (2, 2, 2, 2), Initialiser.UNIFORM),
    "resnet34": ResNetPlan((64, 128, 256, 512), (3, 4, 6, 3), Initialiser.UNIFORM),
}


def resnet(fit: Fit, *, plan: ResNetPlan) -> Chain:
    """Return the layers from images (C, H, W) to logits: stem, stages, global pooling, linear layer."""
    stem, last = fit.channels(plan.channels[0]), fit.channels(plan.channels[-1])
    return (
        ("conv1", Conv(fit.input_shape[0], stem, kernel=3, padding=1, init=plan.init)),
        ("bn1", BatchNorm(stem)),
        ("relu", ReLU()),
        *_stages(fit, plan),
        ("pool", GlobalAvgPool()),
        ("flatten", Flatten()),
        ("linear", Linear(last, fit.num_classes)),
    )


def _stages(fit: Fit, plan: ResNetPlan) -> list[Named]:
    stages: list[Named] = []
    channels = fit.channels(plan.channels[0])
    for number, (base, count) in enumerate(zip(plan.channels, plan.blocks, strict=True), start=1):
        blocks: list[Named] = []
        for index in range(count):
            stride = 2 if number > 1 and index == 0 else 1
            blocks.append((str(index), _block(channels, fit.channels(base), stride=stride, init=plan.init)))
            channels = fit.channels(base)
        stages.append((f"layer{number}", Sequential(tuple(blocks))))
    return stages


def _block(inputs: int, outputs: int, *, stride: int, init: Initialiser) -> Residual:
    changes = stride != 1 or inputs != outputs
    projection = Sequential(
        (("0", Conv(inputs, outputs, kernel=1, stride=stride, init=init)), ("1", BatchNorm(outputs)))
    )
    return Residual(
        body=(
            ("conv1", Conv(inputs, outputs, kernel=3, stride=stride, padding=1, init=init)),
            ("bn1", BatchNorm(outputs)),
            ("relu1", ReLU()),
            ("conv2", Conv(outputs, outputs, kernel=3, padding=1, init=init)),
            ("bn2", BatchNorm(outputs)),
        ),
        shortcut=(("shortcut", projection),) if changes else (),
        after=(("relu2", ReLU()),),
    )


ARCHITECTURES = tuple(
    Architecture(
        name=name,
        family="resnet",
        paper=PAPER,
        form=f"CIFAR form, stages of {'/'.join(map(str, plan.blocks))} basic blocks, "
        f"{'/'.join(map(str, plan.channels))} channels",
        layers=partial(resnet, plan=plan),
    )
    for name, plan in PLANS.items()
)
