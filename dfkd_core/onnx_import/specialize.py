"""`specialize` turns an ONNX model into a `Plan`: it visits every node once, at two batch sizes side by side.

NumPy computes every value that depends on no image. A number that differs between the two batch sizes must be a
multiple of the batch size, and becomes a `Scaled` in the plan. The plan therefore computes no shapes at run time. A
graph that was exported for one batch size is rewritten for others where `batch_rewrite` can do so.
"""

import math
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from dfkd_core.errors import TeacherMismatch
from dfkd_core.interface import Layout
from dfkd_core.onnx_import.assemble import assemble
from dfkd_core.onnx_import.canonicalize import eval_batchnorm, used_names
from dfkd_core.onnx_import.ends.signature import CHANNELS, order_hint, prelude_steps, read_signature
from dfkd_core.onnx_import.ir.node import Call, Unsupported, check_size, normalize_axis
from dfkd_core.onnx_import.ir.parse import array_of, opset_of, readable
from dfkd_core.onnx_import.ir.plan import PASSING, Plan, Shape, Step
from dfkd_core.onnx_import.ir.state import GraphState, GraphValue, Inputs, charge, define, is_padding, merge, operand
from dfkd_core.onnx_import.operators import RULES, SEQUENCES, check_operators, refusal
from dfkd_core.onnx_import.ops import elementwise, layout
from dfkd_core.onnx_import.ops.batch_rewrite import gather_rows, keep_batch_axis, repeat_rows, rewrite, rewrite_constant
from dfkd_core.onnx_import.ops.constant_folding import FOLDS, VIEWS
from dfkd_core.onnx_import.ops.masked_softmax import fuse_masked_softmax
from dfkd_core.onnx_import.ops.reference_folding import ON_CONSTANTS, fold_by_reference
from dfkd_core.onnx_import.producer import exporter_of

NEVER_ON_IMAGES = layout.SHAPES_ONLY | elementwise.WITHOUT_GRADIENT
MAX_PARTS = 4096  # parts of one split
MOVING = {*PASSING, "Transpose", "Expand", "Tile"} - {"Cast"}
MOVING_PIXELS = {*MOVING, "Slice", "Gather", "Concat", "Split", "Pixels"}  # what may come before pixels become real
FLOATS = {elementwise.FLOAT, elementwise.FLOAT16, elementwise.DOUBLE}
HOLDING_PIXELS = {2, 4, 5, 6, 7, 12, 13}  # integer types that hold 0 to 255


def specialize(
    model: ModelProto, done: list[str], *, input_shape: Shape | None = None, layout: Layout | None = None
) -> Plan:
    """Return the plan of a checked and normalised model.

    `done` names the changes that `normalize` made. `input_shape` (C, H, W) replaces sizes that the file leaves open;
    `layout` is where the channels of its images are, if the caller told it.

    Raises:
        OperatorUnsupported: the importer cannot take some nodes; the error lists them.
        TeacherInvalid: the graph does not map images to one row of numbers for each.
        TeacherMismatch: `input_shape` or `layout` contradicts the file, or is missing and the file leaves it open, or
            a node cannot take images of a shape that seems to have its channels last.
    """
    check_operators(model)
    signature = read_signature(model, shape=input_shape, layout=layout)
    batch_sizes = (signature.batch, signature.batch + 1) if signature.batch else (2, 3)
    state = GraphState(opset_of(model), batch_sizes, used=used_names(model), fixed=signature.batch is not None)
    state.exporter, _ = exporter_of(model)
    state.declare(signature.images, signature.shape)
    state.declare(signature.name, signature.dims)
    if signature.element == "uint8":
        state.whole_values.add(signature.name)
    for step, dims in prelude_steps(signature):
        state.steps.append(step)
        state.declare(step.outputs[0], dims)
    for tensor in model.graph.initializer:
        _store(state, tensor)
    for node in model.graph.node:
        try:
            _visit(state, node)
        except Unsupported as reason:
            if input_shape is not None and input_shape[0] not in CHANNELS and input_shape[2] in CHANNELS:
                raise TeacherMismatch(
                    f"the network does not take images of {list(input_shape)}: {node.op_type} — {reason}",
                    hint=order_hint([None] * 3, input_shape),
                    pointer="/teacher/input/shape",
                ) from None
            raise refusal([f"{readable(node.name)}: {node.op_type} — {reason}"]) from None
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
            raise refusal(
                [f"{readable(node.name)}: {node.op_type} — its attributes or inputs are malformed"]
            ) from error
    fuse_masked_softmax(state)
    return assemble(state, model, signature, [*(["batchnorm-to-eval"] if state.evaluated else []), *done])


def _store(state: GraphState, tensor: TensorProto) -> None:
    array = array_of(tensor)
    state.values[tensor.name] = GraphValue((array.shape, array.shape), (array, array), frozenset([tensor.name]))
    if array.dtype.kind == "f" and array.ndim:
        state.sizes[tensor.name] = array.size


def _attributes(node: NodeProto) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in node.attribute:
        match entry.type:
            case AttributeProto.INT:
                found[entry.name] = int(entry.i)
            case AttributeProto.FLOAT:
                found[entry.name] = float(entry.f)
            case AttributeProto.INTS:
                found[entry.name] = tuple(entry.ints)
            case AttributeProto.FLOATS:
                found[entry.name] = tuple(entry.floats)
            case AttributeProto.STRING:
                found[entry.name] = entry.s.decode("utf-8", "replace")
            case AttributeProto.TENSOR:
                found[entry.name] = array_of(entry.t)
            case _:
                raise Unsupported(f"attribute {readable(entry.name)}")
    return found


def _visit(state: GraphState, node: NodeProto) -> None:
    if node.op_type == "BatchNormalization":
        _settle_batchnorm(state, node)
    attributes = _attributes(node)
    if node.op_type == "Constant":
        _constant(state, node.output[0], attributes)
    elif node.op_type in SEQUENCES:
        _sequence(state, node, attributes)
    else:
        inputs = [state.values[name] if name else None for name in node.input]
        if any(value is not None and value.parts for value in inputs):
            raise Unsupported("its input is a sequence")
        if node.op_type in ON_CONSTANTS:
            fold_by_reference(state, node, inputs)
            return
        own = NodeProto()
        own.CopyFrom(node)  # `batch_rewrite` may rename the inputs; ONNX Runtime needs the model unchanged
        _compute(state, own, attributes, inputs)


def _settle_batchnorm(state: GraphState, node: NodeProto) -> None:
    """Put a BatchNormalization of images into eval mode; one that standardises weights stays as it is."""
    if state.values[node.input[0]].const_values is None:
        moments = [state.values[name].constant for name in node.input[3:5]]
        state.evaluated = eval_batchnorm(node, moments, state.used, state.exporter) or state.evaluated


def _constant(state: GraphState, name: str, attributes: dict[str, Any]) -> None:
    kinds = {
        "value": None,
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
    }
    key = next(iter(attributes), "")
    if key not in kinds:
        raise Unsupported("a constant of this kind")
    array = np.asarray(attributes[key], kinds[key])
    state.values[name] = GraphValue((array.shape, array.shape), (array, array), frozenset([name]))
    if array.dtype.kind == "f" and array.ndim:
        state.sizes[name] = array.size


def _sequence(state: GraphState, node: NodeProto, attributes: dict[str, Any]) -> None:
    """Turn SplitToSequence and SequenceAt, which exporters write for `torch.chunk`, into a Split."""
    if not node.input or not node.input[0] or not node.output:
        raise Unsupported("an input or its output is missing")
    value = state.values[node.input[0]]
    known = state.values[node.input[1]].constant if len(node.input) > 1 and node.input[1] else None
    if known is None or known.dtype.kind not in "iu":
        raise Unsupported("its index or its sizes are no constants")
    if node.op_type == "SequenceAt":
        if not value.parts or known.size != 1 or not -len(value.parts) <= known.item() < len(value.parts):
            raise Unsupported("its index is none of the sequence")
        part = value.parts[known.item()]
        state.values[node.output[0]] = state.values[part]
        state.steps.append(Step("Identity", node.name, (part,), (node.output[0],), {}))
        return
    if value.parts or not attributes.get("keepdims", 1):
        raise Unsupported("a split that is not of constant sizes")
    size = value.shapes[0][normalize_axis(int(attributes.get("axis", 0)), len(value.shapes[0]))]
    starts = range(0, size, 1 if known.ndim else max(1, known.item()))
    if (known.size if known.ndim else len(starts)) > MAX_PARTS:
        raise Unsupported(f"a split into more than {MAX_PARTS} parts")
    sizes = known.tolist() if known.ndim else [min(known.item(), size - at) for at in starts]
    parts = tuple(f"{node.output[0]}/{index}" for index in range(len(sizes)))
    split = NodeProto(op_type="Split", name=node.name, input=[node.input[0], ""], output=parts)
    lengths = np.asarray(sizes, np.int64)
    _compute(state, split, attributes, [value, GraphValue((lengths.shape,) * 2, (lengths, lengths))])
    state.values[node.output[0]] = GraphValue(value.shapes, None, parts=parts)


def _call(state: GraphState, node: NodeProto, attributes: dict[str, Any], inputs: Inputs, at: int) -> Call:
    shapes = [value.shapes[at] if value is not None else None for value in inputs]
    const_values = [
        value.const_values[at] if value is not None and value.const_values is not None else None for value in inputs
    ]
    while shapes and shapes[-1] is None:
        del shapes[-1], const_values[-1]
    return Call(
        node.op_type, state.opset, dict(attributes), shapes, const_values, sum(bool(name) for name in node.output)
    )


def _compute(state: GraphState, node: NodeProto, attributes: dict[str, Any], inputs: Inputs) -> None:
    rule = RULES[node.op_type]
    first, second = (_call(state, node, attributes, inputs, at) for at in (0, 1))
    keep_batch_axis(state, node, inputs, first, second)
    shapes = rule(first)
    others = rewrite_constant(state, node, inputs, first, second)
    try:
        others = others or rule(second)
    except Unsupported:
        others = rewrite(state, node, inputs, first, second)
        if others is None:
            raise Unsupported(f"it works for a batch of {state.batch_sizes[0]} images only") from None
    if first.op == "Shape":
        sizes = tuple(
            np.array(call.shape()[call.attributes["start"] : call.attributes["end"]], np.int64)
            for call in (first, second)
        )
        state.values[node.output[0]] = GraphValue((sizes[0].shape, sizes[1].shape), (sizes[0], sizes[1]))
    elif first.op == "Size":
        sizes = tuple(np.array(np.prod(call.shape(), dtype=np.int64)) for call in (first, second))
        state.values[node.output[0]] = GraphValue(((), ()), (sizes[0], sizes[1]))
    elif (
        first.op == "Gather"
        and inputs[0] is not None
        and inputs[0].const_values is None
        and gather_rows(state, node, inputs)
    ):
        return
    elif not _fold(state, node, inputs, (first, second), (shapes, others)):
        _emit(state, node, inputs, (first, second), (shapes, others))


def _fold(
    state: GraphState,
    node: NodeProto,
    inputs: Inputs,
    calls: tuple[Call, Call],
    shapes: tuple[list[Shape], list[Shape]],
) -> bool:
    """Compute the outputs of a node whose inputs are all constants; False if the node must run for each batch.

    A stored array that the graph repeats for each image is repeated at run time, where it stays one weight. What no
    stored array contributes to, such as positions counted in a mask of zeros, is computed here whatever the batch.
    """
    fold = FOLDS.get(calls[0].op)
    if fold is None or any(array is None for call in calls for array in call.const_values):
        return False
    stored = any(value is not None and value.sources & state.sizes.keys() for value in inputs)
    if shapes[0] != shapes[1] and (stored or calls[0].op == "Split"):
        return False
    if calls[0].op not in VIEWS:
        charge(state, sum(math.prod(shape) for both in shapes for shape in both))
    with np.errstate(all="ignore"):
        one = fold([array for array in calls[0].const_values if array is not None], calls[0].attributes)
        same = calls[0].attributes == calls[1].attributes and all(
            value is None or value.constant is not None for value in inputs
        )
        two = one if same else fold([h for h in calls[1].const_values if h is not None], calls[1].attributes)
    weighing = inputs[:3] if calls[0].op == "BatchNormalization" else inputs  # statistics are not learned
    define(state, node, weighing, (one, two))
    return True


def _emit(
    state: GraphState,
    node: NodeProto,
    inputs: Inputs,
    calls: tuple[Call, Call],
    shapes: tuple[list[Shape], list[Shape]],
) -> None:
    """Add the step that computes the node at run time."""
    first, second = calls
    if first.op in NEVER_ON_IMAGES:
        raise Unsupported("no gradient passes it")
    if first.op == "BatchNormalization" and first.attributes.get("training"):
        raise Unsupported("it normalises a constant that grows with the batch")
    is_whole = _is_whole(state, node, first)
    if first.op == "Cast":
        _settle_cast(state, node, first, is_whole=is_whole)
    names: list[str | None] = list(node.input[: len(first.shapes)])
    if node.op_type == "ConstantOfShape":
        names = [f"{node.output[0]}/value"]
        filler = first.const_values[0]
        assert filler is not None
        state.constants[f"{node.output[0]}/value"] = filler
        state.values[f"{node.output[0]}/value"] = GraphValue(((1,), (1,)), (filler, filler))
    else:
        names = [_operand(state, name, value) for name, value in zip(names, inputs, strict=False)]
    if first.op == "Conv" and len(names) > 2 and names[2] and is_padding(state, names[2]):
        names[2] = None
    attributes = {
        key: merge(value, second.attributes.get(key), state.batch_sizes) for key, value in first.attributes.items()
    }
    outputs = tuple(name for name in node.output if name)
    state.steps.append(Step(first.op, node.name, tuple(names), outputs, attributes))
    is_bool = first.op in elementwise.BOOLEAN_OPS or (first.op in MOVING and names[0] in state.bool_values)
    for at, name in enumerate(outputs):
        check_size(shapes[1][at])
        state.values[name] = GraphValue((shapes[0][at], shapes[1][at]), None)
        state.bool_values.update([name] if is_bool else [])
        state.whole_values.update([name] if is_whole else [])


def _operand(state: GraphState, name: str | None, value: GraphValue | None) -> str | None:
    """Return the name of an input of a step; a constant that grows with the batch is repeated at run time."""
    if name and value is not None and value.const_values is not None and value.constant is None:
        return repeat_rows(state, name, value)
    return operand(state, name, value)


def _is_whole(state: GraphState, node: NodeProto, call: Call) -> bool:
    """Return whether the results of a node are the whole numbers of the images, which must become real ones by a Cast.

    Raises:
        Unsupported: the node computes with whole numbers.
    """
    wholes = [name in state.whole_values for name in node.input[: len(call.shapes)] if name]
    if not any(wholes):
        return False
    if call.op == "Cast":
        if call.attributes["to"] in FLOATS:
            return False
        if call.attributes["to"] in HOLDING_PIXELS:
            return True
    if call.op not in MOVING_PIXELS or not all(wholes):
        raise Unsupported("it computes with the whole numbers of the images, before a Cast makes them real")
    return True


def _settle_cast(state: GraphState, node: NodeProto, call: Call, *, is_whole: bool) -> None:
    """Accept a cast to real numbers, a cast of booleans, which have no gradient, or one among whole numbers of images.

    Raises:
        Unsupported: the cast to integers would stop the gradient.
    """
    if is_whole:
        call.op = "Identity"
    elif node.input[0] in state.bool_values:
        call.op = "Identity" if call.attributes["to"] == elementwise.BOOL else "Cast"
    elif call.attributes["to"] not in FLOATS:
        raise Unsupported("no gradient passes a cast to whole numbers")
    call.attributes = {}
