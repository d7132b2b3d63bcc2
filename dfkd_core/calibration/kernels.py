"""The speed of convolutions and matrix products, forward and for both gradients, at the widths of `architectures.cost`.

Weights are in the memory order that a run uses. Sizes are those of common networks: wide layers have small images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.architectures.cost import KERNELS, Kind
from dfkd_core.calibration.stopwatch import seconds_of
from dfkd_core.planning.worker_speed import KernelSpeed

_SIDES = {4: 32, 16: 32, 64: 28, 256: 14}  # side of the square images, by width
_BATCHES = {4: 128, 16: 32, 64: 16, 256: 8}  # images in a batch on a CPU, by width
_TOKENS = {64: 4096, 256: 2048}  # rows of a matrix product, by width
_DEPTHWISE = (16, 96, 28)  # images, channels, side
GPU_BATCH = 8  # a GPU gets this many times the images


@dataclass(frozen=True, slots=True)
class _Case:
    """One layer with its inputs, and the multiply-adds of one forward."""

    inputs: Tensor
    weight: Tensor
    layer: Callable[[Tensor, Tensor], Tensor]
    macs: int


def kernel_speeds(device: torch.device) -> dict[str, KernelSpeed]:
    """Measure every kernel."""
    return {name: _measured(_case(name, device), device) for name in KERNELS}


def bf16_factor(device: torch.device) -> float:
    """Return how many times faster a convolution of 64 channels is in bfloat16."""
    case = _case("conv-64", device)

    def forward() -> Tensor:
        return case.layer(case.inputs, case.weight)

    def narrow() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return forward()

    with torch.no_grad():
        return seconds_of(forward, device) / seconds_of(narrow, device)


def call_seconds(device: torch.device) -> tuple[float, float]:
    """Return what one operation on hardly any values costs, forward and for its gradient."""
    weight = torch.randn((4, 4, 3, 3), device=device, requires_grad=True)
    images = torch.randn((1, 4, 4, 4), device=device, requires_grad=True)
    parameters = torch.randn((4,), device=device)

    def forward() -> Tensor:
        return F.batch_norm(F.conv2d(images, weight, padding=1).relu(), parameters, parameters.abs())

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward().sum(), [images, weight])

    with torch.no_grad():
        alone = seconds_of(forward, device)
    operations = 3
    return alone / operations, max(seconds_of(both, device) - alone, alone) / operations


def _case(name: str, device: torch.device) -> _Case:
    kind, _, text = name.partition("-")
    width, many = int(text or 0), GPU_BATCH if device.type == "cuda" else 1
    if kind == Kind.MATMUL:
        rows = many * _TOKENS[width]
        inputs, weight = _random((rows, width), device), _random((width, width), device)
        return _Case(inputs, weight, F.linear, rows * width * width)
    if kind == Kind.DEPTHWISE:
        count, channels, side = many * _DEPTHWISE[0], *_DEPTHWISE[1:]
        inputs, weight = _random((count, channels, side, side), device), _random((channels, 1, 3, 3), device)
        return _Case(inputs, weight, lambda x, w: F.conv2d(x, w, padding=1, groups=channels), 9 * inputs.numel())
    count, side, kernel = many * _BATCHES[width], _SIDES[width], 1 if kind == Kind.POINTWISE else 3
    inputs = _random((count, width, side, side), device)
    weight = _random((width, width, kernel, kernel), device)
    macs = inputs.numel() * width * kernel**2
    return _Case(inputs, weight, lambda x, w: F.conv2d(x, w, padding=kernel // 2), macs)


def _random(shape: tuple[int, ...], device: torch.device) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    return drawn.to(memory_format=torch.channels_last) if len(shape) == 4 else drawn


def _measured(case: _Case, device: torch.device) -> KernelSpeed:
    """Time the forward alone, and with each of the two gradients."""
    leaf, weight = case.inputs.clone().requires_grad_(True), case.weight.clone().requires_grad_(True)
    with torch.no_grad():
        shown = torch.ones_like(case.layer(case.inputs, case.weight))
        forward = seconds_of(lambda: case.layer(case.inputs, case.weight), device)
    with_inputs = seconds_of(lambda: torch.autograd.grad(case.layer(leaf, case.weight), [leaf], shown), device)
    with_weights = seconds_of(lambda: torch.autograd.grad(case.layer(case.inputs, weight), [weight], shown), device)
    least = forward / 2  # a gradient multiplies as often as the forward; differences of noisy times may say less
    return KernelSpeed(
        forward=case.macs / forward,
        input_gradient=case.macs / max(with_inputs - forward, least),
        weight_gradient=case.macs / max(with_weights - forward, least),
    )
