"""Specialise: an ONNX model becomes a `Plan` by walking it at two batch sizes at once.

What depends on no image is computed now, with NumPy. A number that differs between the two batch sizes must be a
multiple of the batch; it stays in the plan as `Scaled`. So no Shape, Gather or Concat of sizes is left at run time,
and a graph that was exported for one batch size is rewritten where that can be done.
"""

import math
from collections import Counter
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid
from dfkd_core.onnx_import.ir.node import Call, Rule, Unsupported, front
from dfkd_core.onnx_import.ir.parse import array_of, opset_of, readable
from dfkd_core.onnx_import.ir.plan import PASSING, Plan, Shape, Step
from dfkd_core.onnx_import.ir.state import Value, Walk, is_padding, merge, operand
from dfkd_core.onnx_import.ops import attention, elementwise, layers, layout, resize
from dfkd_core.onnx_import.ops.batch_rewrite import gather_rows, rewrite, rewrite_constant
from dfkd_core.onnx_import.ops.constant_folding import FOLDS
from dfkd_core.onnx_import.signature import Signature, read_signature

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **layout.RULES,
    **layers.RULES,
    **resize.RULES,
    **attention.RULES,
}
SEQUENCES = ("SplitToSequence", "SequenceAt")
ACCEPTED = {*RULES, *SEQUENCES, "Constant"}
NEVER_ON_IMAGES = layout.SHAPES_ONLY | elementwise.WITHOUT_GRADIENT
MAX_MACS = 10**12  # for one image; a ViT-L on 384 pixels takes 2e11
MAX_ACTIVATIONS = 2**29  # elements of all values for one image: 2 GiB of float32
MAX_PARTS = 4096  # of one split
MAX_FOLDED = 2**28  # elements of all constants that are computed from others
MOVING = {*PASSING, "Transpose", "Expand", "Tile"} - {"Cast"}
FLOATS = {elementwise.FLOAT, elementwise.FLOAT16, elementwise.DOUBLE}
EXPORT_HINT = (
    "Only the operators of image classifiers are read. Leave pre- and post-processing (casts, resizing, argmax, top-k) "
    "out of the export."
)


def specialize(model: ModelProto, done: list[str], *, input_shape: Shape | None = None) -> Plan:
    """The plan of a checked, normalised model; `input_shape` (C, H, W) fills what the file leaves open.

    Raises OperatorUnsupported with the nodes that cannot be taken, TeacherInvalid for a signature that is not image
    batch → logits, TeacherMismatch where `input_shape` contradicts the file.
    """
    _check_operators(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    given = next(value for value in model.graph.input if value.name not in stored)
    signature = read_signature(given, input_shape)
    probes = (signature.batch, signature.batch + 1) if signature.batch else (2, 3)
    walk = Walk(opset_of(model), probes, fixed=signature.batch is not None)
    walk.values[signature.name] = Value(((probes[0], *signature.shape), (probes[1], *signature.shape)), None)
    for tensor in model.graph.initializer:
        _store(walk, tensor)
    for node in model.graph.node:
        try:
            _visit(walk, node)
        except Unsupported as reason:
            raise _refusal([f"{readable(node.name)}: {node.op_type} — {reason}"]) from None
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
            raise _refusal(
                [f"{readable(node.name)}: {node.op_type} — its attributes or inputs are malformed"]
            ) from error
    return _finish(walk, model, signature, done)


def _refusal(lines: list[str]) -> OperatorUnsupported:
    detail = f"{len(lines)} nodes of the ONNX graph cannot be taken: {'; '.join(lines[:5])}"
    return OperatorUnsupported(detail, nodes=lines[:100], hint=EXPORT_HINT)


def _check_operators(model: ModelProto) -> None:
    unknown = [node for node in model.graph.node if node.op_type not in ACCEPTED]
    if unknown:
        raise _refusal([f"{readable(node.name)}: {readable(node.op_type)} — not on the list" for node in unknown])


def _store(walk: Walk, tensor: TensorProto) -> None:
    array = array_of(tensor)
    walk.values[tensor.name] = Value((array.shape, array.shape), (array, array), frozenset([tensor.name]))
    if array.dtype.kind == "f" and array.ndim:
        walk.sizes[tensor.name] = array.size


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


def _visit(walk: Walk, node: NodeProto) -> None:
    attributes = _attributes(node)
    if node.op_type == "Constant":
        _constant(walk, node.output[0], attributes)
    elif node.op_type in SEQUENCES:
        _sequence(walk, node, attributes)
    else:
        inputs = [walk.values[name] if name else None for name in node.input]
        if any(value is not None and value.parts for value in inputs):
            raise Unsupported("its input is a sequence")
        own = NodeProto()
        own.CopyFrom(node)  # a rewriting renames its inputs; the model itself stays as it is for ONNX Runtime
        _compute(walk, own, attributes, inputs)


def _constant(walk: Walk, name: str, attributes: dict[str, Any]) -> None:
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
    walk.values[name] = Value((array.shape, array.shape), (array, array), frozenset([name]))
    if array.dtype.kind == "f" and array.ndim:
        walk.sizes[name] = array.size


def _sequence(walk: Walk, node: NodeProto, attributes: dict[str, Any]) -> None:
    """SplitToSequence followed by SequenceAt, the unoptimised form of a chunk, becomes Split."""
    if not node.input or not node.input[0] or not node.output:
        raise Unsupported("an input or its output is missing")
    value = walk.values[node.input[0]]
    known = walk.values[node.input[1]].constant if len(node.input) > 1 and node.input[1] else None
    if known is None or known.dtype.kind not in "iu":
        raise Unsupported("its index or its sizes are no constants")
    if node.op_type == "SequenceAt":
        if not value.parts or known.size != 1 or not -len(value.parts) <= known.item() < len(value.parts):
            raise Unsupported("its index is none of the sequence")
        part = value.parts[known.item()]
        walk.values[node.output[0]] = walk.values[part]
        walk.steps.append(Step("Identity", node.name, (part,), (node.output[0],), {}))
        return
    if value.parts or not attributes.get("keepdims", 1):
        raise Unsupported("a split that is not of constant sizes")
    size = value.shapes[0][front(int(attributes.get("axis", 0)), len(value.shapes[0]))]
    starts = range(0, size, 1 if known.ndim else max(1, known.item()))
    if (known.size if known.ndim else len(starts)) > MAX_PARTS:
        raise Unsupported(f"a split into more than {MAX_PARTS} parts")
    sizes = known.tolist() if known.ndim else [min(known.item(), size - at) for at in starts]
    parts = tuple(f"{node.output[0]}/{index}" for index in range(len(sizes)))
    split = NodeProto(op_type="Split", name=node.name, input=[node.input[0], ""], output=parts)
    lengths = np.asarray(sizes, np.int64)
    _compute(walk, split, attributes, [value, Value((lengths.shape,) * 2, (lengths, lengths))])
    walk.values[node.output[0]] = Value(value.shapes, None, parts=parts)


def _call(walk: Walk, node: NodeProto, attributes: dict[str, Any], inputs: list[Value | None], probe: int) -> Call:
    shapes = [value.shapes[probe] if value is not None else None for value in inputs]
    hosts = [value.hosts[probe] if value is not None and value.hosts is not None else None for value in inputs]
    while shapes and shapes[-1] is None:
        del shapes[-1], hosts[-1]
    return Call(node.op_type, walk.opset, dict(attributes), shapes, hosts, sum(bool(name) for name in node.output))


def _compute(walk: Walk, node: NodeProto, attributes: dict[str, Any], inputs: list[Value | None]) -> None:
    rule = RULES[node.op_type]
    first, second = (_call(walk, node, attributes, inputs, probe) for probe in (0, 1))
    shapes = rule(first)
    others = rewrite_constant(walk, node, inputs, first, second)
    try:
        others = others or rule(second)
    except Unsupported:
        others = rewrite(walk, node, inputs, first, second)
        if others is None:
            raise Unsupported(f"it works for a batch of {walk.probes[0]} images only") from None
    if first.op == "Shape":
        hosts = tuple(
            np.array(call.shape()[call.attributes["start"] : call.attributes["end"]], np.int64)
            for call in (first, second)
        )
        walk.values[node.output[0]] = Value((hosts[0].shape, hosts[1].shape), (hosts[0], hosts[1]))
    elif first.op == "Size":
        hosts = tuple(np.array(np.prod(call.shape(), dtype=np.int64)) for call in (first, second))
        walk.values[node.output[0]] = Value(((), ()), (hosts[0], hosts[1]))
    elif first.op == "Gather" and inputs[0] is not None and inputs[0].hosts is None and gather_rows(walk, node, inputs):
        return
    elif not _fold(walk, node, inputs, (first, second), (shapes, others)):
        _emit(walk, node, inputs, (first, second), (shapes, others))


def _fold(
    walk: Walk,
    node: NodeProto,
    inputs: list[Value | None],
    calls: tuple[Call, Call],
    shapes: tuple[list[Shape], list[Shape]],
) -> bool:
    """Compute now what depends on no image; reals only where their shape does not grow with the batch."""
    if any(host is None for call in calls for host in call.hosts):
        return False
    reals = any(host is not None and host.dtype.kind == "f" for host in calls[0].hosts)
    if shapes[0] != shapes[1] and (reals or calls[0].op == "Split"):
        return False
    fold = FOLDS.get(calls[0].op)
    if fold is None or len(shapes[0]) != 1:
        return _fold_split(walk, node, calls[0]) if calls[0].op == "Split" and len(shapes[0]) > 0 else False
    walk.folded += sum(math.prod(shape) for shape in (shapes[0][0], shapes[1][0]))
    if walk.folded > MAX_FOLDED:
        raise Unsupported("the constants that the graph computes are too large")
    with np.errstate(all="ignore"):
        one = np.asarray(fold([host for host in calls[0].hosts if host is not None], calls[0].attributes))
        same = calls[0].attributes == calls[1].attributes and all(
            value is None or value.constant is not None for value in inputs
        )
        two = one if same else np.asarray(fold([h for h in calls[1].hosts if h is not None], calls[1].attributes))
    known = [value for value in inputs if value is not None]
    sources = frozenset().union(*(value.sources for value in known)) if one.dtype.kind == "f" else frozenset()
    walk.values[node.output[0]] = Value((one.shape, two.shape), (one, two), sources)
    return True


def _fold_split(walk: Walk, node: NodeProto, call: Call) -> bool:
    """A constant cut into several."""
    array = call.hosts[0]
    assert array is not None
    parts = np.split(array, np.cumsum(call.attributes["sizes"])[:-1], call.attributes["axis"])
    for name, part in zip(node.output, parts, strict=True):
        walk.values[name] = Value((part.shape, part.shape), (part, part), walk.values[node.input[0]].sources)
    return True


def _emit(
    walk: Walk,
    node: NodeProto,
    inputs: list[Value | None],
    calls: tuple[Call, Call],
    shapes: tuple[list[Shape], list[Shape]],
) -> None:
    """A step that is left for run time."""
    first, second = calls
    if first.op in NEVER_ON_IMAGES:
        raise Unsupported("no gradient passes it")
    if first.op == "Cast":
        _settle_cast(walk, node, first)
    names: list[str | None] = list(node.input[: len(first.shapes)])
    if node.op_type == "ConstantOfShape":
        names = [f"{node.output[0]}/value"]
        filler = first.hosts[0]
        assert filler is not None
        walk.constants[f"{node.output[0]}/value"] = filler
        walk.values[f"{node.output[0]}/value"] = Value(((1,), (1,)), (filler, filler))
    else:
        names = [operand(walk, name, value) for name, value in zip(names, inputs, strict=False)]
    if first.op == "Conv" and len(names) > 2 and names[2] and is_padding(walk, names[2]):
        names[2] = None
    attributes = {key: merge(value, second.attributes.get(key), walk.probes) for key, value in first.attributes.items()}
    outputs = tuple(name for name in node.output if name)
    walk.steps.append(Step(first.op, node.name, tuple(names), outputs, attributes))
    truths = first.op in elementwise.TRUTHS or (first.op in MOVING and names[0] in walk.truths)
    for at, name in enumerate(outputs):
        layout.bear(shapes[1][at])
        walk.values[name] = Value((shapes[0][at], shapes[1][at]), None)
        walk.truths.update([name] if truths else [])


def _settle_cast(walk: Walk, node: NodeProto, call: Call) -> None:
    """To real numbers, or of truth values, which have no gradient to lose."""
    if node.input[0] in walk.truths:
        call.op = "Identity" if call.attributes["to"] == elementwise.BOOL else "Cast"
    elif call.attributes["to"] not in FLOATS:
        raise Unsupported("no gradient passes a cast to whole numbers")
    call.attributes = {}


def _finish(walk: Walk, model: ModelProto, signature: Signature, done: list[str]) -> Plan:
    name = model.graph.output[0].name
    value = walk.values[name]
    if value.hosts is not None or value.parts:
        raise TeacherInvalid("the output of the ONNX graph does not depend on its input")
    one, two = value.shapes
    if len(one) != 2 or (one[0], two[0]) != walk.probes or one[1] != two[1]:
        raise TeacherInvalid(
            f"the output of the ONNX graph has shape {list(one)} for {walk.probes[0]} images, not (N, classes)",
            hint="A teacher returns one row of logits for each image.",
        )
    if one[1] < 2:
        raise TeacherInvalid("the teacher has one class only", hint="Two-class teachers return two logits.")
    steps = _alive(walk.steps, name)
    used = {operand for step in steps for operand in step.inputs if operand}
    if signature.name not in used:
        raise TeacherInvalid("the output of the ONNX graph does not depend on its input")
    plan = Plan(
        input_name=signature.name,
        output_name=name,
        input_shape=signature.shape,
        num_classes=one[1],
        batch="fixed" if signature.batch else "dynamic",
        declared_batch=signature.batch,
        opset=walk.opset,
        element=signature.element,
        steps=tuple(steps),
        constants={key: array for key, array in walk.constants.items() if key in used},
        learned=_learned(walk, steps),
        shapes={key: _for_one(entry.shapes, walk.probes) for key, entry in walk.values.items() if not entry.parts},
        operators=dict(Counter(node.op_type for node in model.graph.node)),
        normalisations=(*done, *_further(walk, model, signature)),
    )
    _check_size(plan)
    return plan


def _check_size(plan: Plan) -> None:
    """Refuse what could be computed only by somebody else's computer, and what no computer can."""
    if plan.macs > MAX_MACS or plan.activations > MAX_ACTIVATIONS:
        raise TeacherInvalid(
            f"the ONNX graph is too large: {plan.macs:.1e} multiply-adds and {plan.activations:.1e} values "
            "for one image",
            hint=f"At most {MAX_MACS:.0e} multiply-adds and {MAX_ACTIVATIONS:.1e} values are taken: "
            "use smaller images.",
        )
    for name, array in plan.constants.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise TeacherInvalid(
                f"tensor {readable(name)} holds NaN", hint="Upload a checkpoint from before it diverged."
            )


def _for_one(shapes: tuple[Shape, Shape], probes: tuple[int, int]) -> Shape:
    return tuple(one if one == two else one // probes[0] for one, two in zip(*shapes, strict=True))


def _alive(steps: list[Step], output: str) -> list[Step]:
    """The steps that the output needs, in their order."""
    needed = {output}
    kept = []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            needed.update(name for name in step.inputs if name)
            kept.append(step)
    return kept[::-1]


def _learned(walk: Walk, steps: list[Step]) -> dict[str, int]:
    sources: set[str] = set()
    for step in steps:
        weights = step.inputs[:3] if step.op == "BatchNormalization" else step.inputs
        for name in weights:
            if name in walk.constants:
                sources |= walk.values[name].sources
    return {name: walk.sizes[name] for name in sorted(sources) if name in walk.sizes}


def _further(walk: Walk, model: ModelProto, signature: Signature) -> list[str]:
    found = []
    if walk.rewritten or signature.batch:
        found.append("fixed-batch-rewritten")
    types = {tensor.data_type for tensor in model.graph.initializer}
    if TensorProto.FLOAT16 in types or signature.element == "float16":
        found.append("float16-to-float32")
    if TensorProto.DOUBLE in types or signature.element == "float64":
        found.append("float64-to-float32")
    return found
