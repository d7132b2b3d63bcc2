"""Other batch sizes: what a graph's own constants only allow for one batch size is rewritten where that can be done."""

import math

import numpy as np
from onnx import NodeProto

from dfkd_core.onnx_import.ir.node import Call, Unsupported
from dfkd_core.onnx_import.ir.plan import Array, Scaled, Shape, Step
from dfkd_core.onnx_import.ir.state import GraphState, GraphValue, Inputs, merge
from dfkd_core.onnx_import.ops.layout import RULES


def rewrite_constant(
    state: GraphState, node: NodeProto, inputs: Inputs, first: Call, second: Call
) -> list[Shape] | None:
    """A constant target in a file of fixed batch ([1, -1]) may fit another batch and yet mix its images."""
    target = inputs[1] if node.op_type == "Reshape" and len(inputs) > 1 else None
    if not state.fixed or target is None or target.constant is None or first.shape() == second.shape():
        return None
    return rewrite(state, node, inputs, first, second)


def rewrite(state: GraphState, node: NodeProto, inputs: Inputs, first: Call, second: Call) -> list[Shape] | None:
    """The same node for another batch size, where the file's own sizes only fit the declared one."""
    if node.op_type in ("Reshape", "Expand"):
        shape = _rescale(inputs[0], first.attributes["shape"], state.batch_sizes) if inputs[0] is not None else None
        if shape is None:
            return None
        second.op, second.attributes = first.op, {"shape": shape}
        second.keep_inputs(1)
        state.rewritten = True
        return [shape]
    if node.op_type == "AffineGrid" and first.attributes["size"][0] == state.batch_sizes[0]:
        size = (state.batch_sizes[1], *first.attributes["size"][1:])
        second.attributes = {**first.attributes, "size": size}
        second.keep_inputs(1)
        state.rewritten = True
        return [(state.batch_sizes[1], *size[2:], 2)]
    if node.op_type == "Concat":
        return _rewrite_concat(state, node, inputs, first, second)
    return None


def _rescale(value: GraphValue, target: Shape, batch_sizes: tuple[int, int]) -> Shape | None:
    """The target of a Reshape with the batch in its place, which is found by its distance in memory.

    Where a batch of one leaves a choice, an axis of the batch's own size is the likeliest, then the last that does not
    hold features; parity with ONNX Runtime has the last word.
    """
    before, after = value.shapes
    grown = [axis for axis, (one, two) in enumerate(zip(before, after, strict=True)) if one != two]
    if len(grown) != 1 or math.prod(before) != math.prod(target):
        return None
    axis = grown[0]
    outermost, innermost = math.prod(before[axis:]) // batch_sizes[0], math.prod(before[axis + 1 :])
    place = _place(target, outermost, innermost, batch_sizes[0])
    if place is None:
        return None
    return (*target[:place], target[place] * after[axis] // before[axis], *target[place + 1 :])


def _place(target: Shape, outermost: int, innermost: int, batch: int) -> int | None:
    """The axis of `target` that holds the batch, whose images lie one of two distances apart in memory.

    The distances differ where the batch is one factor of an axis: its first factor, or its last.
    """
    near, far = (
        [
            at
            for at in range(len(target))
            if math.prod(target[at + 1 :]) <= stride <= math.prod(target[at:]) and target[at] % batch == 0
        ]
        for stride in (innermost, outermost)
    )
    own = [at for at in (*far, *near) if target[at] == batch]
    if own:
        return own[0]
    inner = [at for at in far if at < len(target) - 1] or far
    return inner[-1] if inner else None


def _rewrite_concat(
    state: GraphState, node: NodeProto, inputs: Inputs, first: Call, second: Call
) -> list[Shape] | None:
    """A constant that is the same for every image of the batch (a class token): one row of it is spread at run time."""
    growing = [value for value in inputs if value is not None and value.shapes[0] != value.shapes[1]]
    if not growing:
        return None
    axis = next(at for at, (one, two) in enumerate(zip(*growing[0].shapes, strict=True)) if one != two)
    for at, value in enumerate(inputs):
        if value is not None and value.constant is not None:
            spread = _spread(state, value, value.constant, axis, name=f"{node.input[at]}/{node.output[0]}")
            if spread is None:
                return None
            node.input[at], inputs[at] = spread
    state.rewritten = True
    second.shapes = [value.shapes[1] if value is not None else None for value in inputs]
    first.const_values = [None] * len(first.const_values)
    second.attributes = {"axis": first.attributes["axis"]}
    try:
        return RULES["Concat"](second)
    except Unsupported:
        return None


def _spread(
    state: GraphState, value: GraphValue, constant: Array, axis: int, *, name: str
) -> tuple[str, GraphValue] | None:
    """A step that repeats the one row of a constant over the batch: its output's name and value."""
    batch, other = state.batch_sizes
    row = constant.take([0], axis) if constant.shape[axis] == batch else constant
    if row.shape[axis] != 1 or not (row == constant).all():
        return None
    shapes = [(*row.shape[:axis], count, *row.shape[axis + 1 :]) for count in (batch, other)]
    state.constants[f"{name}/row"] = row
    state.values[f"{name}/row"] = GraphValue((row.shape, row.shape), (row, row), value.sources)
    target = tuple(merge(one, two, state.batch_sizes) for one, two in zip(*shapes, strict=True))
    state.steps.append(Step("Expand", name, (f"{name}/row",), (name,), {"shape": target}))
    state.values[name] = GraphValue((shapes[0], shapes[1]), None)
    return name, state.values[name]


def gather_rows(state: GraphState, node: NodeProto, inputs: Inputs) -> bool:
    """Indices into a flattened batch, image after image (the exporter's strided view): a Gather within each image."""
    flat, indices = inputs[0], inputs[1]
    assert flat is not None
    assert indices is not None
    if len(flat.shapes[0]) != 1 or flat.shapes[0] == flat.shapes[1] or indices.const_values is None:
        return False
    count, size = state.batch_sizes[0], flat.shapes[0][0] // state.batch_sizes[0]
    first, second = indices.const_values
    if first.shape == second.shape and count == 1 and first.shape[:1] == (1,):
        second = np.concatenate([first, first + size])
        state.rewritten = True
    own = first.reshape(count, -1)[0]
    for images, array in zip(state.batch_sizes, (first, second), strict=True):
        if array.shape[:1] != (images,) or not np.array_equal(
            array.reshape(images, -1), own + size * np.arange(images)[:, None]
        ):
            return False
    rows, picked, output = f"{node.output[0]}/rows", f"{node.output[0]}/picked", node.output[0]
    shape = (Scaled(1), *first.shape[1:])
    chosen = {"axis": 1, "indices": own.tolist()}
    state.steps += [
        Step("Reshape", node.name, (node.input[0],), (rows,), {"shape": (Scaled(1), size)}),
        Step("Gather", node.name, (rows,), (picked,), chosen),
        Step("Reshape", node.name, (picked,), (output,), {"shape": shape}),
    ]
    for name, tail in ((rows, (size,)), (picked, (own.size,)), (output, first.shape[1:])):
        state.values[name] = GraphValue(((state.batch_sizes[0], *tail), (state.batch_sizes[1], *tail)), None)
    return True
