"""`GraphState`: the values that `specialize` has computed so far, at two batch sizes, and the steps for run time."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto

from dfkd_core.onnx_import.ir.node import Unsupported
from dfkd_core.onnx_import.ir.plan import Array, Scaled, Shape, Step

MAX_FOLDED = 2**28  # elements of all constants that are computed from others


@dataclass(slots=True)
class GraphValue:
    """A named value at both batch sizes. `const_values` is None if the value depends on the images."""

    shapes: tuple[Shape, Shape]
    const_values: tuple[Array, Array] | None
    sources: frozenset[str] = frozenset()  # names of the stored tensors from which the value was computed
    parts: tuple[str, ...] = ()  # if the value is a sequence: the names of its parts

    @property
    def constant(self) -> Array | None:
        """The constant value if it is the same at both batch sizes, else None."""
        if self.const_values is None or self.shapes[0] != self.shapes[1]:
            return None
        first, second = self.const_values
        return first if first is second or np.array_equal(first, second) else None


Inputs = list[GraphValue | None]
"""The inputs of a node; None stands for an omitted optional input."""


@dataclass(slots=True)
class GraphState:
    """The state of the walk through the nodes."""

    opset: int
    batch_sizes: tuple[int, int]
    used: set[str]  # names of the values that a node or the output of the graph uses
    values: dict[str, GraphValue] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # stored float tensor → number of elements
    bool_values: set[str] = field(default_factory=set)  # names of the run-time values of boolean type
    folded: int = 0  # elements of all constants computed so far
    exporter: str | None = None  # what wrote the file
    fixed: bool = False  # the file declares one batch size
    rewritten: bool = False  # a node was rewritten for other batch sizes
    evaluated: bool = False  # a BatchNormalization in training mode was put into eval mode
    whole_values: set[str] = field(default_factory=set)  # names of the run-time values that are whole numbers

    def declare(self, name: str, shape: Shape) -> None:
        """Note the shape, for one image, of a value that depends on the images."""
        one, two = self.batch_sizes
        self.values[name] = GraphValue(((one, *shape), (two, *shape)), None)

    def derive(self, name: str, array: Array, *, source: str) -> None:
        """Add a constant that was computed from the constant `source`."""
        self.constants[name] = array
        self.values[name] = GraphValue((array.shape, array.shape), (array, array), self.values[source].sources)


def charge(state: GraphState, elements: int) -> None:
    """Count the elements of constants before they are computed.

    Raises:
        Unsupported: all constants that the graph computes have too many.
    """
    state.folded += elements
    if state.folded > MAX_FOLDED:
        raise Unsupported("the constants that the graph computes are too large")


def define(
    state: GraphState,
    node: NodeProto,
    inputs: Inputs,
    results: tuple[Array | tuple[Array, ...], Array | tuple[Array, ...]],
) -> None:
    """Store the outputs of a node, computed at both batch sizes; they come from the sources of `inputs`."""
    sources = frozenset().union(*(value.sources for value in inputs if value is not None))
    ones, twos = (found if isinstance(found, tuple) else (found,) for found in results)
    for name, first, second in zip(node.output, ones, twos, strict=False):
        one, two = np.asarray(first), np.asarray(second)
        if name:
            origin = sources if one.dtype.kind == "f" else frozenset[str]()
            state.values[name] = GraphValue((one.shape, two.shape), (one, two), origin)


def operand(state: GraphState, name: str | None, value: GraphValue | None) -> str | None:
    """Return the name of an input of a step; if the input is a constant, it is added to the constants of the plan.

    Raises:
        Unsupported: the constant differs between the two batch sizes.
    """
    if not name or value is None:
        return None
    if value.const_values is not None:
        constant = value.constant
        if constant is None:
            raise Unsupported("a number computed from the batch size meets the images")
        state.constants[name] = constant
    return name


def is_padding(state: GraphState, name: str) -> bool:
    """Return whether a bias holds only zeros and comes from no stored tensor: then the exporter has added it."""
    return not state.values[name].sources & state.sizes.keys() and not state.constants[name].any()


def merge(first: Any, second: Any, batch_sizes: tuple[int, int]) -> Any:
    """Return an attribute from its values at both batch sizes: the equal value, or `Scaled` if it grows with the batch.

    Raises:
        Unsupported: the values differ, and are not the same multiple of the batch size.
    """
    if isinstance(first, tuple):
        return tuple(merge(one, two, batch_sizes) for one, two in zip(first, second, strict=True))
    if first == second:
        return first
    if isinstance(first, int) and isinstance(second, int) and first % batch_sizes[0] == 0:
        factor = first // batch_sizes[0]
        if factor * batch_sizes[1] == second:
            return Scaled(factor)
    raise Unsupported("a size is not a multiple of the batch")
