"""Folding of operators that are taken on constants only, by onnx.reference: ONNX's own implementation in NumPy.

Exporters write them into arithmetic on shapes, masks and weights. The sizes of the results are bounded before anything
is computed, and the cost is charged to the same account as all other constants.
"""

import math
from collections.abc import Callable

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper

from dfkd_core.onnx_import.ir.node import Unsupported, broadcast, check_size
from dfkd_core.onnx_import.ir.parse import to_single
from dfkd_core.onnx_import.ir.plan import Array
from dfkd_core.onnx_import.ir.state import GraphState, Inputs, charge, define

MAX_REFERENCE = 2**22  # elements of the inputs and the outputs of one node
PER_ELEMENT = 64  # some implementations are loops in Python, which take as long as 64 elements of a NumPy function
PER_NODE = 2**14  # to set up the evaluation of one node takes as long as so many elements

Bound = Callable[[list[Array]], int]
"""The largest number of elements that the outputs of a node can have, from its inputs."""


def _of_first(values: list[Array]) -> int:
    return values[0].size


def _broadcast(values: list[Array]) -> int:
    return math.prod(broadcast(*(array.shape for array in values)))


def _one_hot(values: list[Array]) -> int:
    return values[0].size * max(0, int(values[1].reshape(-1)[0]))


ON_CONSTANTS: dict[str, Bound] = {
    **dict.fromkeys(("ScatterND", "ScatterElements", "EyeLike", "ArgMax", "ArgMin", "Compress"), _of_first),
    "BitwiseNot": _of_first,
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift"), _broadcast),
    "GatherElements": lambda values: values[1].size,
    "OneHot": _one_hot,
    "NonZero": lambda values: values[0].size * max(1, values[0].ndim),
    "TopK": lambda values: 2 * values[0].size,
    "Unique": lambda values: 4 * values[0].size,
}


INDEXED = ("GatherElements", "ScatterElements", "ScatterND")
"""Operators whose second input holds indices into the first. NumPy counts far ones back to the array one by one."""


def fold_by_reference(state: GraphState, node: NodeProto, inputs: Inputs) -> None:
    """Compute the outputs of a node whose inputs are all constants.

    Raises:
        Unsupported: an input depends on the images, the result would be too large, or the node is malformed.
    """
    first, second = (
        [value.const_values[at] if value is not None and value.const_values is not None else None for value in inputs]
        for at in (0, 1)
    )
    if any(value is not None and value.const_values is None for value in inputs):
        raise Unsupported("no gradient passes it")
    same = all(value is None or value.constant is not None for value in inputs)
    one = _evaluate(state, node, first)
    define(state, node, inputs, (one, one if same else _evaluate(state, node, second)))


def _evaluate(state: GraphState, node: NodeProto, values: list[Array | None]) -> tuple[Array, ...]:
    from onnx.reference import ReferenceEvaluator  # loads 200 modules, which few files need

    known = [array for array in values if array is not None]
    elements = ON_CONSTANTS[node.op_type](known) + sum(array.size for array in known)
    check_size((elements,))
    if elements > MAX_REFERENCE:
        raise Unsupported(f"its {elements} elements are too many")
    if node.op_type in INDEXED and not _lie_within(known):
        raise Unsupported("an index lies outside its input")
    charge(state, PER_ELEMENT * elements + PER_NODE)
    given = dict(zip(node.input, values, strict=True))
    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "constants",
        [ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name],
        [ValueInfoProto(name=name) for name in outputs],
    )
    feeds = {name: array for name, array in given.items() if name}
    try:
        found = ReferenceEvaluator(graph, opsets={"": state.opset}).run(outputs, feeds)
    except Exception as error:  # its implementations raise whatever NumPy or an assertion raises
        raise Unsupported("its attributes or inputs are malformed") from error
    results = iter(np.asarray(array) for array in found)
    return tuple(to_single(next(results)) if name else np.zeros(0) for name in node.output)


def _lie_within(values: list[Array]) -> bool:
    """Return whether no index of the second array is beyond the longest axis of the first."""
    array, indices = values[:2]
    longest = max(array.shape, default=1)
    return bool(np.all(np.abs(indices.astype(np.float64)) <= longest))
