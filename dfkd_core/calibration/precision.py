"""Tries whether bfloat16 is faster here: updates of a small student, each timed in both precisions by a run's engine.

A single wide convolution would promise more than a run keeps: the layers of students are narrow, and normalisations,
activations and the conversions between both precisions take their part.
"""

import torch
from torch import Tensor, nn

from dfkd_core.calibration.kernels import GPU_BATCH
from dfkd_core.calibration.stopwatch import seconds_of
from dfkd_core.networks.precision import Engine, engine_running
from dfkd_core.planning.precision_choice import TRIES
from dfkd_core.spec.compute import Compute, Precision

_IMAGES = (32, 3, 32, 32)  # (N, C, H, W); GPU_BATCH times the images on a GPU
_STAGES = ((3, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))  # channels in, out; stride
_CLASSES = 10


def bf16_tries(device: torch.device) -> tuple[float, ...]:
    """Return for each try how many times faster an update is in bfloat16."""
    images = torch.randn(_IMAGES, generator=torch.Generator().manual_seed(0))
    many = images.repeat(GPU_BATCH, 1, 1, 1) if device.type == "cuda" else images
    inputs = many.to(device).to(memory_format=torch.channels_last)
    network = _network().to(device)
    return tuple(
        _seconds(network, inputs, precision="fp32") / _seconds(network, inputs, precision="bf16") for _ in range(TRIES)
    )


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in _STAGES:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    width = _STAGES[-1][1]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, _CLASSES))


def _seconds(network: nn.Sequential, images: Tensor, *, precision: Precision) -> float:
    """Return the seconds of a forward and of the gradients of all weights."""
    engine = Engine(Compute(precision=precision))
    engine.to_channels_last(network, images.device)

    def update() -> tuple[Tensor, ...]:
        loss = engine(network, images).logsumexp(dim=1).sum()
        return torch.autograd.grad(loss, list(network.parameters()))

    with engine_running(engine, device=images.device):
        return seconds_of(update, images.device)
