"""Call: one node as the operator tables see it, with shapes and known values of its inputs at one batch size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfkd_core.onnx_import.ir.plan import Array, Shape

MAX_ELEMENTS = 2**27  # of one value: 512 MiB of float32


class Unsupported(Exception):
    """The node cannot be taken; the message is the reason."""


@dataclass(slots=True)
class Call:
    """A node at one batch size. A rule reads it, keeps the inputs that stay tensors and settles the attributes."""

    op: str
    opset: int
    attributes: dict[str, Any]
    shapes: list[Shape | None]  # None: the input is left out
    const_values: list[Array | None]  # None: depends on the images
    num_outputs: int

    def shape(self, index: int = 0) -> Shape:
        """Shape of an input that must be there."""
        shape = self.shapes[index] if index < len(self.shapes) else None
        if shape is None:
            raise Unsupported(f"input {index} is missing")
        return shape

    @property
    def rank(self) -> int:
        """Number of dimensions of the first input."""
        return len(self.shape(0))

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.shapes) and self.shapes[index] is not None

    def const_value(self, index: int) -> Array:
        """The value of an input that must not depend on the images."""
        value = self.const_values[index] if self.given(index) else None
        if value is None:
            raise Unsupported(f"input {index} is missing or depends on the images")
        return value

    def ints(self, index: int, attribute: str) -> tuple[int, ...] | None:
        """Whole numbers that older operator sets hold as an attribute and newer ones as an input."""
        if self.given(index):
            return tuple(int(value) for value in np.atleast_1d(self.const_value(index)).ravel())
        value = self.attributes.get(attribute)
        return None if value is None else tuple(int(entry) for entry in np.atleast_1d(value))

    def number(self, index: int, attribute: str, default: float) -> float:
        """The same for a single real number."""
        if self.given(index):
            return float(np.asarray(self.const_value(index)).ravel()[0])
        return float(self.attributes.get(attribute, default))

    def axis(self, default: int) -> int:
        """The attribute `axis`, counted from the front."""
        return normalize_axis(int(self.attributes.get("axis", default)), self.rank)

    def keep_inputs(self, count: int) -> None:
        """Only the first `count` inputs stay; the others have been read into attributes."""
        del self.shapes[count:], self.const_values[count:]


Rule = Callable[[Call], list[Shape]]
"""Settles `attributes`, drops the inputs it has read, and returns the shapes of the outputs."""


def normalize_axis(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise Unsupported(f"axis {axis} of {rank} dimensions")
    return axis % rank if rank else 0


def broadcast(*shapes: Sequence[int]) -> Shape:
    """The shape that the given ones broadcast to."""
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except (ValueError, RuntimeError):  # the latter: more dimensions than NumPy knows
        raise Unsupported(f"shapes {', '.join(map(str, shapes))} do not fit together") from None


def check_size(shape: Shape) -> None:
    """Refuse a value that would not fit into memory, before anything is allocated."""
    if any(size < 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise Unsupported(f"its result of shape {shape} is too large")
