"""Layers as data (torch-free): one description both counts a network and, through `build.py`, builds it.

A shape is that of one image without the batch: (C, H, W), or (F,) behind a flatten. Multiply-adds (MACs) are those of
convolutions and linear layers for one image; biases, normalisation, activations and pooling count nothing.

Layer
├── Conv · BatchNorm · Linear        carry weights
├── ReLU · ReLU6 · Dropout           keep the shape
├── MaxPool · AvgPool · GlobalAvgPool · Flatten
└── Sequential · Residual            hold named layers; a name is the prefix of the parameters below it
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dfkd_core.errors import StudentError

Shape = tuple[int, ...]


class Initialiser(StrEnum):
    """How a layer's weight and bias are drawn."""

    UNIFORM = "uniform"  # weight and bias in ±1/√fan_in: the framework's default
    UNIFORM_ZERO_BIAS = "uniform-zero-bias"  # the same weight; bias 0
    HE_NORMAL = "he-normal"  # weight N(0, 2/(k·k·out)), He et al. 2015 with fan-out; bias 0
    SMALL_NORMAL = "small-normal"  # weight N(0, 0.01²); bias 0


class Layer(ABC):
    """One layer: what it makes of a shape, the tensors that it carries, and what it costs."""

    __slots__ = ()

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Shape behind this layer; StudentError where the input does not fit."""

    def macs(self, shape: Shape) -> int:
        """Multiply-adds for one image whose shape in front of this layer is `shape`."""
        return 0

    def activations(self, shape: Shape) -> int:
        """Elements that it computes for one image whose shape in front of this layer is `shape`."""
        return math.prod(self.output_shape(shape))

    def weights(self) -> dict[str, Shape]:
        """Trained tensors by name."""
        return {}

    def statistics(self) -> dict[str, Shape]:
        """Tensors that are kept but not trained (running statistics), by name."""
        return {}

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(math.prod(shape) for shape in self.weights().values())


Named = tuple[str, Layer]
Chain = tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Conv(Layer):
    """2-d convolution with a square kernel. (C, H, W) → (out, H', W')."""

    in_channels: int
    out_channels: int
    kernel: int = field(kw_only=True)
    stride: int = field(default=1, kw_only=True)
    padding: int = field(default=0, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    bias: bool = field(default=False, kw_only=True)
    init: Initialiser = field(default=Initialiser.UNIFORM, kw_only=True)

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = _image(shape, "a convolution")
        if channels != self.in_channels:
            raise StudentError(f"a convolution of {self.in_channels} channels does not take {channels}")
        sides = (_slide(side, self.kernel, stride=self.stride, padding=self.padding) for side in (height, width))
        return (self.out_channels, *sides)

    def macs(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape)) * (self.in_channels // self.groups) * self.kernel**2

    def weights(self) -> dict[str, Shape]:
        weight = (self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}


@dataclass(frozen=True, slots=True)
class Linear(Layer):
    """Fully connected layer with a bias. (in,) → (out,)."""

    in_features: int
    out_features: int
    init: Initialiser = field(default=Initialiser.UNIFORM, kw_only=True)

    def output_shape(self, shape: Shape) -> Shape:
        if shape != (self.in_features,):
            raise StudentError(f"a linear layer of {self.in_features} inputs does not take {_text(shape)}")
        return (self.out_features,)

    def macs(self, shape: Shape) -> int:
        return self.in_features * self.out_features

    def weights(self) -> dict[str, Shape]:
        return {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}


@dataclass(frozen=True, slots=True)
class BatchNorm(Layer):
    """Batch normalisation over (N, H, W) of each channel, with running mean and variance; weight 1 and bias 0."""

    channels: int

    def output_shape(self, shape: Shape) -> Shape:
        if _image(shape, "a batch normalisation")[0] != self.channels:
            raise StudentError(f"a batch normalisation of {self.channels} channels does not take {shape[0]}")
        return shape

    def weights(self) -> dict[str, Shape]:
        return {"weight": (self.channels,), "bias": (self.channels,)}

    def statistics(self) -> dict[str, Shape]:
        return {"running_mean": (self.channels,), "running_var": (self.channels,)}


@dataclass(frozen=True, slots=True)
class ReLU(Layer):
    """max(x, 0)."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True)
class ReLU6(Layer):
    """min(max(x, 0), 6)."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """While training, each value is zeroed with this probability and the rest scaled up; nothing otherwise."""

    probability: float

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True)
class MaxPool(Layer):
    """Largest value of each kernel × kernel window, windows side by side; what is left over at the edge is dropped."""

    kernel: int

    def output_shape(self, shape: Shape) -> Shape:
        return _pooled(shape, self.kernel)


@dataclass(frozen=True, slots=True)
class AvgPool(Layer):
    """Mean of each kernel × kernel window, windows side by side; what is left over at the edge is dropped."""

    kernel: int

    def output_shape(self, shape: Shape) -> Shape:
        return _pooled(shape, self.kernel)


@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Layer):
    """Mean over the whole image, whatever its size. (C, H, W) → (C, 1, 1)."""

    def output_shape(self, shape: Shape) -> Shape:
        return (_image(shape, "a pooling")[0], 1, 1)


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """(C, H, W) → (C·H·W,)."""

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True, slots=True)
class Sequential(Layer):
    """Named layers one after the other."""

    chain: Chain

    def output_shape(self, shape: Shape) -> Shape:
        for _, layer in self.chain:
            shape = layer.output_shape(shape)
        return shape

    def macs(self, shape: Shape) -> int:
        total = 0
        for _, layer in self.chain:
            total += layer.macs(shape)
            shape = layer.output_shape(shape)
        return total

    def activations(self, shape: Shape) -> int:
        total = 0
        for _, layer in self.chain:
            total += layer.activations(shape)
            shape = layer.output_shape(shape)
        return total

    def weights(self) -> dict[str, Shape]:
        return {f"{name}.{key}": shape for name, layer in self.chain for key, shape in layer.weights().items()}

    def statistics(self) -> dict[str, Shape]:
        return {f"{name}.{key}": shape for name, layer in self.chain for key, shape in layer.statistics().items()}


@dataclass(frozen=True, slots=True)
class Residual(Layer):
    """after(body(h) + shortcut(h)) with h = before(x). An empty shortcut is the identity.

    The names of all four chains share one level, so they must differ: `conv1`, `bn1`, …, `shortcut`.
    """

    body: Chain
    before: Chain = field(default=(), kw_only=True)
    shortcut: Chain = field(default=(), kw_only=True)
    after: Chain = field(default=(), kw_only=True)

    def output_shape(self, shape: Shape) -> Shape:
        shape = Sequential(self.before).output_shape(shape)
        body, shortcut = (Sequential(chain).output_shape(shape) for chain in (self.body, self.shortcut))
        if body != shortcut:
            raise StudentError(f"a residual block adds {_text(body)} to {_text(shortcut)}")
        return Sequential(self.after).output_shape(body)

    def macs(self, shape: Shape) -> int:
        inner = Sequential(self.before).output_shape(shape)
        branches = Sequential(self.body).macs(inner) + Sequential(self.shortcut).macs(inner)
        tail = Sequential(self.after).macs(Sequential(self.body).output_shape(inner))
        return Sequential(self.before).macs(shape) + branches + tail

    def activations(self, shape: Shape) -> int:
        inner = Sequential(self.before).output_shape(shape)
        added = Sequential(self.body).output_shape(inner)
        branches = Sequential(self.body).activations(inner) + Sequential(self.shortcut).activations(inner)
        ends = Sequential(self.before).activations(shape) + Sequential(self.after).activations(added)
        return ends + branches + math.prod(added)

    def weights(self) -> dict[str, Shape]:
        return self._all().weights()

    def statistics(self) -> dict[str, Shape]:
        return self._all().statistics()

    def _all(self) -> Sequential:
        return Sequential(self.before + self.body + self.shortcut + self.after)


@dataclass(frozen=True, slots=True)
class NetworkDescription:
    """A classifier from images (N, C, H, W) to logits (N, num_classes), as data."""

    name: str  # of the architecture, e.g. "resnet18"
    input_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    layers: Chain
    width: float = 1.0
    options: Mapping[str, float] = field(default_factory=dict)  # the family's own, with defaults filled in

    def __post_init__(self) -> None:
        out = self.body.output_shape(self.input_shape)
        if out != (self.num_classes,):
            raise StudentError(f"the last layer gives {_text(out)} for {self.num_classes} classes")

    @property
    def body(self) -> Sequential:
        """All layers as one."""
        return Sequential(self.layers)

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return self.body.parameters

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and linear layers for one image."""
        return self.body.macs(self.input_shape)

    @property
    def activations(self) -> int:
        """Elements of all that is computed for one image."""
        return self.body.activations(self.input_shape)

    def tensors(self) -> dict[str, Shape]:
        """Name and shape of every tensor in a weight file: parameters and running statistics.

        Not listed: `num_batches_tracked` of batch normalisations and `draws` of dropouts, both counters.
        """
        return {**self.body.weights(), **self.body.statistics()}


def _image(shape: Shape, layer: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise StudentError(f"{layer} needs an image, not {_text(shape)}")
    return shape[0], shape[1], shape[2]


def _slide(side: int, kernel: int, *, stride: int, padding: int) -> int:
    """Number of positions of a window along one side."""
    if side + 2 * padding < kernel:
        raise StudentError(f"a window of {kernel} does not fit into a side of {side} with padding {padding}")
    return (side + 2 * padding - kernel) // stride + 1


def _pooled(shape: Shape, kernel: int) -> Shape:
    channels, height, width = _image(shape, "a pooling")
    return (channels, *(_slide(side, kernel, stride=kernel, padding=0) for side in (height, width)))


def _text(shape: Shape) -> str:
    return "×".join(str(side) for side in shape)
