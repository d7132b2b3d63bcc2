"""LeNet-5 (LeCun et al. 1998) in the form of the replay papers: ReLU, max-pooling, no padding, biases in every layer.

Parameters: conv1, conv2, conv3, fc1, fc2.
"""

from functools import partial

from dfkd_core.architectures.family import Architecture, Fit
from dfkd_core.architectures.layers import Chain, Conv, Flatten, Linear, MaxPool, ReLU
from dfkd_core.errors import StudentError

PAPER = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
SIDE = 32


def lenet(fit: Fit, *, channels: tuple[int, int, int, int]) -> Chain:
    """Return the layers from images (C, 32, 32) to logits; the sides are 28, 14, 10, 5 and 1.

    Raises:
        StudentError: the images are not 32×32.
    """
    if fit.input_shape[1:] != (SIDE, SIDE):
        height, width = fit.input_shape[1:]
        raise StudentError(
            f"LeNet-5 takes {SIDE}×{SIDE} images as published, not {height}×{width}",
            hint=f"Pad or resize to {SIDE}×{SIDE}, or choose a residual network: those take any size.",
        )
    first, second, third, fourth = (fit.channels(count) for count in channels)
    return (
        ("conv1", Conv(fit.input_shape[0], first, kernel=5, bias=True)),  # 28 × 28
        ("relu1", ReLU()),
        ("pool1", MaxPool(2)),  # 14 × 14
        ("conv2", Conv(first, second, kernel=5, bias=True)),  # 10 × 10
        ("relu2", ReLU()),
        ("pool2", MaxPool(2)),  # 5 × 5
        ("conv3", Conv(second, third, kernel=5, bias=True)),  # 1 × 1
        ("relu3", ReLU()),
        ("flatten", Flatten()),
        ("fc1", Linear(third, fourth)),
        ("relu4", ReLU()),
        ("fc2", Linear(fourth, fit.num_classes)),
    )


ARCHITECTURES = tuple(
    Architecture(
        name=name,
        family="lenet",
        paper=PAPER,
        form=f"convolutions of {'/'.join(map(str, channels[:3]))} channels, then {channels[3]}; 32×32 images only",
        layers=partial(lenet, channels=channels),
    )
    for name, channels in {"lenet5": (6, 16, 120, 84), "lenet5_half": (3, 8, 60, 42)}.items()
)
