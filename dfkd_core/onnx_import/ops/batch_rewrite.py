"""Rewriting of nodes whose constants fit only one batch size, so that a graph exported for it takes any batch size."""

import math

import numpy as np
from onnx import NodeProto

from dfkd_core.onnx_import.ir.node import Call, Unsupported
from dfkd_core.onnx_import.ir.plan import Array, Scaled, Shape, Step
from dfkd_core.onnx_import.ir.state import GraphState, GraphValue, Inputs, merge
from dfkd_core.onnx_import.ops.layout import RULES


def keep_batch_axis(state: GraphState, node: NodeProto, inputs: Inputs, first: Call, second: Call) -> None:
    """Let a Squeeze without axes leave the axis of the images, which has size 1 in a file for one image.

    Such a file is tf2onnx's of MobileNetV2 for small images: at the end its features have size 1 along all other axes.
    """
    value = inputs[0] if inputs else None
    if node.op_type != "Squeeze" or value is None or len(first.shapes) > 1 or "axes" in first.attributes:
        return
    before, after = value.shapes
    first.attributes["axes"] = tuple(
        at for at, sizes in enumerate(zip(before, after, strict=True)) if set(sizes) == {1}
    )
    second.attributes["axes"] = first.attributes["axes"]
    state.rewritten = state.rewritten or any(one == 1 != two for one, two in zip(before, after, strict=True))


def rewrite_constant(
    state: GraphState, node: NodeProto, inputs: Inputs, first: Call, second: Call
) -> list[Shape] | None:
    """Rewrite a Reshape to a constant shape in a file of fixed batch size; None if no rewriting is needed.

    Such a shape, for example [1, -1], may fit another batch size and then mix the values of its images.
    """
    target = inputs[1] if node.op_type == "Reshape" and len(inputs) > 1 else None
    if not state.fixed or target is None or target.constant is None or first.shape() == second.shape():
        return None
    return rewrite(state, node, inputs, first, second)


def rewrite(state: GraphState, node: NodeProto, inputs: Inputs, first: Call, second: Call) -> list[Shape] | None:
    """Rewrite a node whose constant sizes fit only the declared batch size.

    `first` is the node at the declared batch size, `second` the node at the other one. `second` is changed in place.
    Returns the shapes of the outputs at the other batch size, or None if the node cannot be rewritten.
    """
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
    """Return the target shape of a Reshape for the other batch size; None if no axis of the target can hold the batch.

    The batch axis of the target is the one in which images lie as far apart in memory as in the input. For a batch of
    one image several axes may qualify: `_place` prefers an axis of the size of the batch, then the last axis that does
    not hold features. The comparison with ONNX Runtime later shows whether the choice was right.
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
    """Return the axis of `target` that holds the batch; None if there is none.

    `outermost` and `innermost` are the two possible distances of neighbouring images in memory, in elements. They
    differ if the batch is only one factor of an axis: `outermost` if it is the first factor, `innermost` if the last.
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
    """Rewrite a Concat with a constant equal for all images (a class token); one row is repeated at run time."""
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
    """Add a step that repeats one row of a constant over the batch; the name and value of its output.

    Returns None if the rows of the constant differ.
    """
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


def repeat_rows(state: GraphState, name: str, value: GraphValue) -> str:
    """Repeat a constant that grows with the batch at run time; the name of the repeated value.

    Raises:
        Unsupported: the constant is not the same for all images.
    """
    repeated = f"{name}/repeated"
    if repeated in state.values:
        return repeated
    axis, count, row = _row_of(value, state.batch_sizes)
    before, after = row.shape[:axis], row.shape[axis + 1 :]
    state.constants[f"{name}/row"] = row
    state.values[f"{name}/row"] = GraphValue((row.shape, row.shape), (row, row), value.sources)
    wide = repeated if count == 1 else f"{name}/wide"
    state.steps.append(Step("Expand", name, (f"{name}/row",), (wide,), {"shape": (*before, Scaled(1), *after)}))
    if count > 1:
        shape = (*before, Scaled(count), *after[1:])
        state.steps.append(Step("Reshape", name, (wide,), (repeated,), {"shape": shape}))
        one, two = ((*before, size, *after) for size in state.batch_sizes)
        state.values[wide] = GraphValue((one, two), None)
    state.values[repeated] = GraphValue(value.shapes, None)
    if row.dtype == np.bool_:
        state.bool_values.update((wide, repeated))
    return repeated


def _row_of(value: GraphValue, batch_sizes: tuple[int, int]) -> tuple[int, int, Array]:
    """Return the axis along which a constant grows, its entries for each image, and those of one image.

    If an image has one entry, the row has size 1 along the axis, otherwise the axes 1 and the number of entries.
    """
    assert value.const_values is not None
    one, two = value.const_values
    grown = [at for at, (low, high) in enumerate(zip(*value.shapes, strict=False)) if low != high]
    if one.ndim != two.ndim or len(grown) != 1:
        raise Unsupported("a number computed from the batch size meets the images")
    axis = grown[0]
    count, rest = divmod(one.shape[axis], batch_sizes[0])
    if rest or count < 1 or two.shape[axis] != count * batch_sizes[1]:
        raise Unsupported("a number computed from the batch size meets the images")
    inner = (count,) if count > 1 else ()
    first, second = (
        array.reshape(*array.shape[:axis], images, *inner, *array.shape[axis + 1 :])
        for array, images in zip((one, two), batch_sizes, strict=True)
    )
    row = first.take([0], axis)
    if not ((row == first).all() and (row == second).all()):
        raise Unsupported("a number computed from the batch size meets the images")
    return axis, count, row


def gather_rows(state: GraphState, node: NodeProto, inputs: Inputs) -> bool:
    """Replace a Gather from a flattened batch, with the same indices in each image, by a Gather inside each image.

    Exporters write such a Gather for a strided view. Returns False, and adds no step, if the node is not of this form.
    """
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
