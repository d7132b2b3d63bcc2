"""`Call`: one node at one batch size, with the shapes and known values of its inputs; the operator rules work on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfkd_core.onnx_import.ir.plan import Array, Shape

MAX_ELEMENTS = 2**27  # elements of one value: 512 MiB of float32


class Unsupported(Exception):
    """The importer cannot take a node; the message says why."""


@dataclass(slots=True)
class Call:
    """A node at one batch size. A rule drops the inputs that it reads into attributes, and completes the attributes."""

    op: str
    opset: int
    attributes: dict[str, Any]
    shapes: list[Shape | None]  # None: the node omits this optional input
    const_values: list[Array | None]  # None: the value depends on the images
    num_outputs: int

    def shape(self, index: int = 0) -> Shape:
        """Return the shape of a required input.

        Raises:
            Unsupported: the node omits the input.
        """
        shape = self.shapes[index] if index < len(self.shapes) else None
        if shape is None:
            raise Unsupported(f"input {index} is missing")
        return shape

    @property
    def rank(self) -> int:
        """The number of dimensions of the first input."""
        return len(self.shape(0))

    def has_input(self, index: int) -> bool:
        """Return whether the node has this optional input."""
        return index < len(self.shapes) and self.shapes[index] is not None

    def const_value(self, index: int) -> Array:
        """Return the value of a constant input.

        Raises:
            Unsupported: the node omits the input, or its value depends on the images.
        """
        value = self.const_values[index] if self.has_input(index) else None
        if value is None:
            raise Unsupported(f"input {index} is missing or depends on the images")
        return value

    def ints(self, index: int, attribute: str) -> tuple[int, ...] | None:
        """Return integers that older operator sets store in an attribute and newer ones in an input; None without
        either.
        """
        if self.has_input(index):
            return tuple(int(value) for value in np.atleast_1d(self.const_value(index)).ravel())
        value = self.attributes.get(attribute)
        return None if value is None else tuple(int(entry) for entry in np.atleast_1d(value))

    def number(self, index: int, attribute: str, default: float) -> float:
        """Return a real number that older operator sets store in an attribute and newer ones in an input."""
        if self.has_input(index):
            return float(np.asarray(self.const_value(index)).ravel()[0])
        return float(self.attributes.get(attribute, default))

    def axis(self, default: int) -> int:
        """Return the attribute `axis` as an index from 0 to rank - 1."""
        return normalize_axis(int(self.attributes.get("axis", default)), self.rank)

    def keep_inputs(self, count: int) -> None:
        """Drop all but the first `count` inputs, after a rule has read the others into attributes."""
        del self.shapes[count:], self.const_values[count:]


Rule = Callable[[Call], list[Shape]]
"""Completes the attributes of a call, drops the inputs that became attributes, and returns the output shapes.

Raises Unsupported for a node that the importer cannot take.
"""


def normalize_axis(axis: int, rank: int) -> int:
    """Return the index, from 0 to rank - 1, of an axis that may be negative.

    Raises:
        Unsupported: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise Unsupported(f"axis {axis} of {rank} dimensions")
    return axis % rank if rank else 0


def broadcast(*shapes: Sequence[int]) -> Shape:
    """Return the shape that `shapes` broadcast to.

    Raises:
        Unsupported: they do not broadcast.
    """
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except (ValueError, RuntimeError):  # RuntimeError: more dimensions than NumPy supports
        raise Unsupported(f"shapes {', '.join(map(str, shapes))} do not fit together") from None


def check_size(shape: Shape) -> None:
    """Check the shape of a value before memory is allocated for it.

    Raises:
        Unsupported: a size is negative, or the value has more than MAX_ELEMENTS elements.
    """
    if any(size < 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise Unsupported(f"its result of shape {shape} is too large")
