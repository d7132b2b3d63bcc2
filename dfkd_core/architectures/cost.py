"""NetworkCost: what one image costs a network, in the units that a worker's benchmark measures (torch-free).

Multiply-adds are counted by kernel, because a processor does not do all of them equally fast. A kernel is a kind of
layer and a width. The width of a layer lies between two measured widths, and its multiply-adds are shared between the
two kernels, so that the cost changes smoothly with the width.
"""

import math
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from dfkd_core.architectures.layers import (
    AvgPool,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool,
    NetworkDescription,
    ReLU6,
    Residual,
    Sequential,
    Shape,
)

LANES = 16
"""The channels that a kernel without multiply-adds computes at once. Pooling has no such kernel for fewer channels."""

WIDTHS = (4, 16, 64, 256)
"""The widths at which kernels are measured: numbers of channels, or the shorter side of a matrix product."""


class Kind(StrEnum):
    """The kinds of layers that multiply."""

    CONV = "conv"  # a convolution with a kernel larger than 1 × 1
    POINTWISE = "pointwise"  # a 1 × 1 convolution
    DEPTHWISE = "depthwise"  # a convolution with one channel in a group
    MATMUL = "matmul"


def kernel_name(kind: Kind, width: int) -> str:
    """Return the name of one kernel: the kind, and the width where the kind has several."""
    return kind.value if kind is Kind.DEPTHWISE else f"{kind.value}-{width}"


def _widths(kind: Kind) -> tuple[int, ...]:
    return WIDTHS[2:] if kind is Kind.MATMUL else WIDTHS


KERNELS = tuple(dict.fromkeys(kernel_name(kind, width) for kind in Kind for width in _widths(kind)))
"""The names of all kernels that a benchmark measures."""

_KERNEL = f"^({'|'.join(KERNELS)})$"


class NetworkCost(BaseModel):
    """What one image costs a network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    macs: dict[Annotated[str, Field(pattern=_KERNEL)], NonNegativeInt] = Field(
        default_factory=dict, description="Multiply-adds by kernel, such as conv-64."
    )
    elements: NonNegativeInt = Field(
        0,
        description="Values that activations and sums write, and those that pooling reads; what takes as long as n of "
        "them counts as n.",
    )
    norm_elements: NonNegativeInt = Field(0, description="Values that batch normalisations read.")
    operations: NonNegativeInt = Field(0, description="Layers that compute something.")
    activations: NonNegativeInt = Field(
        0,
        description="Values of all layers' outputs; twice those of an activation whose gradient needs its input.",
    )
    largest: NonNegativeInt = Field(0, description="Values of the largest output of a layer.")

    def scaled(self, *, macs: float, activations: float) -> "NetworkCost":
        """Return the cost of a network with the same layers and these shares of the multiply-adds and activations."""
        return NetworkCost(
            macs={kernel: round(count * macs) for kernel, count in self.macs.items()},
            elements=round(self.elements * activations),
            norm_elements=round(self.norm_elements * activations),
            operations=self.operations,
            activations=round(self.activations * activations),
            largest=round(self.largest * activations),
        )


def shares(kind: Kind, width: float) -> dict[str, float]:
    """Return the shares of the one or two kernels between whose widths `width` lies; they sum to 1."""
    widths = _widths(kind)
    if kind is Kind.DEPTHWISE or width <= widths[0]:
        return {kernel_name(kind, widths[0]): 1.0}
    if width >= widths[-1]:
        return {kernel_name(kind, widths[-1]): 1.0}
    above = next(index for index, known in enumerate(widths) if known > width)
    low, high = widths[above - 1], widths[above]
    part = math.log(width / low) / math.log(high / low)
    return {kernel_name(kind, low): 1 - part, kernel_name(kind, high): part}


def kernel_of_convolution(
    *, inner_channels: int, groups: int, kernel_area: int, out_channels: int
) -> tuple[Kind, float]:
    """Return kind and width of a convolution whose groups have `inner_channels` channels each.

    A 7 × 7 convolution of 3 channels is as wide as a 3 × 3 convolution of 16, because both sum as many values.
    """
    if inner_channels == 1 and groups > 1:
        return Kind.DEPTHWISE, 1.0
    written = max(1, out_channels // groups)
    if kernel_area == 1:
        return Kind.POINTWISE, min(inner_channels, written)
    return Kind.CONV, min(inner_channels * kernel_area / 9, written)


class CostCounter:
    """Adds up the cost of a network, layer by layer."""

    def __init__(self) -> None:
        self._macs: dict[str, float] = {}
        self._counts = {"elements": 0, "norm_elements": 0, "operations": 0, "activations": 0}
        self._largest = 0

    def multiply(self, kind: Kind, width: float, *, macs: int, outputs: int) -> None:
        """Add a convolution or a matrix product that writes `outputs` values."""
        for kernel, share in shares(kind, width).items():
            self._macs[kernel] = self._macs.get(kernel, 0.0) + share * macs
        self._add(outputs)

    def normalise(self, elements: int) -> None:
        """Add a batch normalisation of `elements` values."""
        self._counts["norm_elements"] += elements
        self._add(elements)

    def pass_over(self, elements: int, *, keeps_input: bool = False) -> None:
        """Add a layer without multiply-adds that writes `elements` values.

        `keeps_input`: its gradient needs its input. That of a plain rectifier needs the output alone, which the next
        layer keeps anyway.
        """
        self._counts["elements"] += elements
        self._counts["activations"] += elements if keeps_input else 0
        self._add(elements)

    def pool(self, elements: int, *, channels: int, outputs: int) -> None:
        """Add a pooling that reads `elements` values of `channels` channels."""
        self._counts["elements"] += elements * (1 if channels >= LANES else LANES)
        self._add(outputs)

    def _add(self, outputs: int) -> None:
        self._counts["operations"] += 1
        self._counts["activations"] += outputs
        self._largest = max(self._largest, outputs)

    def total(self) -> NetworkCost:
        """Return the sum."""
        macs = {kernel: round(self._macs[kernel]) for kernel in sorted(self._macs)}
        return NetworkCost(macs=macs, largest=self._largest, **self._counts)


def cost_of(description: NetworkDescription) -> NetworkCost:
    """Return the cost of a network of the catalogue."""
    counter = CostCounter()
    for layer, shape in leaves(description.body, description.input_shape):
        outputs = math.prod(layer.output_shape(shape))
        match layer:
            case Conv(in_channels=channels, groups=groups, kernel=kernel, out_channels=out):
                kind, width = kernel_of_convolution(
                    inner_channels=channels // groups, groups=groups, kernel_area=kernel**2, out_channels=out
                )
                counter.multiply(kind, width, macs=layer.macs(shape), outputs=outputs)
            case Linear(in_features=features, out_features=out):
                counter.multiply(Kind.MATMUL, min(features, out), macs=layer.macs(shape), outputs=outputs)
            case BatchNorm():
                counter.normalise(outputs)
            case MaxPool() | AvgPool() | GlobalAvgPool():
                counter.pool(math.prod(shape), channels=shape[0], outputs=outputs)
            case Flatten():
                pass
            case _:
                counter.pass_over(outputs, keeps_input=isinstance(layer, ReLU6))
    return counter.total()


def leaves(layer: Layer, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Yield every layer that holds no other layers, with the shape of its input; a sum of branches counts as ReLU."""
    match layer:
        case Sequential(chain=chain):
            yield from _chained(chain, shape)
        case Residual(body=body, before=before, shortcut=shortcut, after=after):
            yield from _chained(before, shape)
            inner = Sequential(before).output_shape(shape)
            yield from _chained(body, inner)
            yield from _chained(shortcut, inner)
            added = Sequential(body).output_shape(inner)
            yield _SUM, added
            yield from _chained(after, added)
        case _:
            yield layer, shape


def _chained(chain: Iterable[tuple[str, Layer]], shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    for _, layer in chain:
        yield from leaves(layer, shape)
        shape = layer.output_shape(shape)


class _Sum(Layer):
    """The sum of the branches of a residual block."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


_SUM = _Sum()
