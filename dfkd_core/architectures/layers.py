"""Layers as data (torch-free). One description counts a network, and `students.build` makes a PyTorch network of it.

Shapes are those of one image, without the batch axis: (C, H, W), or (F,) behind a flatten. Multiply-adds (MACs) count
the convolutions and linear layers for one image; biases, normalisation, activations and pooling count as zero.

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
    """The distribution of a layer's initial weight and bias."""

    UNIFORM = "uniform"  # weight and bias uniform in ±1/√fan_in, which is PyTorch's default
    UNIFORM_ZERO_BIAS = "uniform-zero-bias"  # weight uniform in ±1/√fan_in; bias 0
    HE_NORMAL = "he-normal"  # weight N(0, 2/(k·k·out)), He et al. 2015 with fan-out; bias 0
    SMALL_NORMAL = "small-normal"  # weight N(0, 0.01²); bias 0


class Layer(ABC):
    """One layer, with its output shape, its tensors and its cost."""

    __slots__ = ()

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the layer's output for an input of `shape`.

        Raises:
            StudentError: the layer cannot take this input.
        """

    def macs(self, shape: Shape) -> int:
        """Return the multiply-adds for one input of `shape`."""
        return 0

    def activations(self, shape: Shape) -> int:
        """Return the number of elements that the layer computes for one input of `shape`."""
        return math.prod(self.output_shape(shape))

    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the trained tensors, by name."""
        return {}

    def statistics(self) -> dict[str, Shape]:
        """Return the shapes of the running statistics, by name. They are stored but not trained."""
        return {}

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(math.prod(shape) for shape in self.weights().values())


Named = tuple[str, Layer]
Chain = tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Conv(Layer):
    """A 2-d convolution with a square kernel: (C, H, W) → (out, H', W')."""

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
    """A fully connected layer with a bias: (in,) → (out,)."""

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
    """Batch normalisation of each channel over (N, H, W). Weight starts at 1, bias at 0."""

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
    """In training, zeroes each value with `probability` and scales the others by 1 / (1 - probability)."""

    probability: float

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True)
class MaxPool(Layer):
    """The maximum of each kernel × kernel window. Windows do not overlap, and incomplete windows are dropped."""

    kernel: int

    def output_shape(self, shape: Shape) -> Shape:
        return _pooled(shape, self.kernel)


@dataclass(frozen=True, slots=True)
class AvgPool(Layer):
    """The mean of each kernel × kernel window. Windows do not overlap, and incomplete windows are dropped."""

    kernel: int

    def output_shape(self, shape: Shape) -> Shape:
        return _pooled(shape, self.kernel)


@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Layer):
    """The mean of each channel over an image of any size: (C, H, W) → (C, 1, 1)."""

    def output_shape(self, shape: Shape) -> Shape:
        return (_image(shape, "a pooling")[0], 1, 1)


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """(C, H, W) → (C·H·W,)."""

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True, slots=True)
class Sequential(Layer):
    """Named layers in sequence."""

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
    """Computes after(body(h) + shortcut(h)) with h = before(x). An empty chain is the identity.

    The four chains share one namespace, so all their names must differ: `conv1`, `bn1`, …, `shortcut`.
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

    name: str  # name of the architecture, e.g. "resnet18"
    input_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    layers: Chain
    width: float = 1.0
    options: Mapping[str, float] = field(default_factory=dict)  # options of the family, with defaults filled in

    def __post_init__(self) -> None:
        out = self.body.output_shape(self.input_shape)
        if out != (self.num_classes,):
            raise StudentError(f"the last layer gives {_text(out)} for {self.num_classes} classes")

    @property
    def body(self) -> Sequential:
        """All layers as one sequence."""
        return Sequential(self.layers)

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return self.body.parameters

    @property
    def macs(self) -> int:
        """The multiply-adds of convolutions and linear layers for one image."""
        return self.body.macs(self.input_shape)

    @property
    def activations(self) -> int:
        """The number of elements of all layer outputs for one image."""
        return self.body.activations(self.input_shape)

    def tensors(self) -> dict[str, Shape]:
        """Return name and shape of every tensor that a weight file must have: parameters and running statistics.

        `num_batches_tracked` of batch normalisations and `seed` and `draws` of dropouts are not listed.
        """
        return {**self.body.weights(), **self.body.statistics()}


def _image(shape: Shape, layer: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise StudentError(f"{layer} needs an image, not {_text(shape)}")
    return shape[0], shape[1], shape[2]


def _slide(side: int, kernel: int, *, stride: int, padding: int) -> int:
    """Return the number of positions of a window along one side.

    Raises:
        StudentError: the window is larger than the padded side.
    """
    if side + 2 * padding < kernel:
        raise StudentError(f"a window of {kernel} does not fit into a side of {side} with padding {padding}")
    return (side + 2 * padding - kernel) // stride + 1


def _pooled(shape: Shape, kernel: int) -> Shape:
    channels, height, width = _image(shape, "a pooling")
    return (channels, *(_slide(side, kernel, stride=kernel, padding=0) for side in (height, width)))


def _text(shape: Shape) -> str:
    return "×".join(str(side) for side in shape)
