"""Specialise: an ONNX model becomes a `Plan` by walking it at two batch sizes at once.

What depends on no image is computed now, with NumPy. A number that differs between the two batch sizes must be a
multiple of the batch; it stays in the plan as `Scaled`. So no Shape, Gather or Concat of sizes is left at run time,
and a graph that was exported for one batch size is rewritten where that can be done.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.graph import elementwise, layers, layout
from dfkd_core.graph.calls import Call, Rule, Unsupported
from dfkd_core.graph.folding import FOLDS
from dfkd_core.graph.model import array_of, opset_of, readable
from dfkd_core.graph.plan import Array, Plan, Scaled, Shape, Step

RULES: dict[str, Rule] = {**elementwise.RULES, **layout.RULES, **layers.RULES}
SEQUENCES = ("SplitToSequence", "SequenceAt")
ACCEPTED = {*RULES, *SEQUENCES, "Constant"}
NEVER_ON_IMAGES = layout.SHAPES_ONLY | elementwise.WITHOUT_GRADIENT
FLOATS = {elementwise.FLOAT, elementwise.FLOAT16, elementwise.DOUBLE}
EXPORT_HINT = (
    "Only the operators of image classifiers are read. Leave pre- and post-processing (casts, resizing, argmax, top-k) "
    "out of the export."
)
_ELEMENTS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}


@dataclass(slots=True)
class Value:
    """A named value at both batch sizes. `hosts` is None where it depends on the images."""

    shapes: tuple[Shape, Shape]
    hosts: tuple[Array, Array] | None
    sources: frozenset[str] = frozenset()  # stored tensors that it was computed from
    parts: tuple[str, ...] = ()  # of a sequence

    @property
    def constant(self) -> Array | None:
        """The value where it is the same at both batch sizes."""
        if self.hosts is None or self.shapes[0] != self.shapes[1]:
            return None
        first, second = self.hosts
        return first if first is second or np.array_equal(first, second) else None


@dataclass(slots=True)
class Signature:
    """What the file says of its input."""

    name: str
    element: Any  # a Literal of Plan.element
    shape: Shape  # (C, H, W)
    batch: int | None  # None: dynamic


@dataclass(slots=True)
class Walk:
    """The state of the walk through the nodes."""

    opset: int
    probes: tuple[int, int]
    values: dict[str, Value] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # stored float tensor → elements
    fixed: bool = False  # the file declares one batch size
    rewritten: bool = False


def specialize(model: ModelProto, done: list[str], *, input_shape: Shape | None = None) -> Plan:
    """The plan of a checked, normalised model; `input_shape` (C, H, W) fills what the file leaves open.

    Raises OperatorUnsupported with the nodes that cannot be taken, TeacherInvalid for a signature that is not image
    batch → logits, TeacherMismatch where `input_shape` contradicts the file.
    """
    _check_operators(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    given = next(value for value in model.graph.input if value.name not in stored)
    signature = _signature(given, input_shape)
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
    return _finish(walk, model, signature, done)


def _refusal(lines: list[str]) -> OperatorUnsupported:
    detail = f"{len(lines)} nodes of the ONNX graph cannot be taken: {'; '.join(lines[:5])}"
    return OperatorUnsupported(detail, nodes=lines[:100], hint=EXPORT_HINT)


def _check_operators(model: ModelProto) -> None:
    unknown = [node for node in model.graph.node if node.op_type not in ACCEPTED]
    if unknown:
        raise _refusal([f"{readable(node.name)}: {readable(node.op_type)} — not on the list" for node in unknown])


def _signature(value: ValueInfoProto, wanted: Shape | None) -> Signature:
    tensor = value.type.tensor_type
    element = _ELEMENTS.get(tensor.elem_type)
    if element is None:
        raise TeacherInvalid(
            "the input of the ONNX graph is not a batch of floating-point images",
            hint="Export the network without its pre-processing, with float32 images (N, C, H, W) as input.",
        )
    dims = [int(dim.dim_value) if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if len(dims) != 4:
        raise TeacherInvalid(f"the input of the ONNX graph has {len(dims)} dimensions, not 4: (N, C, H, W)")
    if dims[3] in (1, 3) and (dims[1] or 0) > 4:
        raise TeacherInvalid(
            f"the input of the ONNX graph is (N, H, W, C): {dims[1:]}",
            hint="Export with channels first (tf2onnx: --inputs-as-nchw).",
        )
    shape = _image_shape(dims[1:], wanted)
    return Signature(value.name, element, shape, dims[0] if dims[0] and dims[0] > 0 else None)


def _image_shape(dims: list[int | None], wanted: Shape | None) -> Shape:
    if wanted is None and None in dims:
        raise TeacherMismatch(
            "the ONNX graph leaves the size of its images open",
            hint="Give teacher.input.shape.",
            pointer="/teacher/input",
        )
    shape = tuple(size if size is not None else (wanted or ())[at] for at, size in enumerate(dims))
    if wanted is not None and shape != tuple(wanted):
        raise TeacherMismatch(
            f"the file takes images of {list(shape)}, the spec says {list(wanted)}", pointer="/teacher/input/shape"
        )
    if not all(1 <= size <= 4096 for size in shape):
        raise TeacherInvalid(f"images of shape {list(shape)} cannot be taken")
    return shape


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
        _compute(walk, node, attributes, inputs)


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
    value = walk.values[node.input[0]]
    known = walk.values[node.input[1]].constant if len(node.input) > 1 and node.input[1] else None
    if node.op_type == "SequenceAt":
        if known is None or not value.parts or not -len(value.parts) <= int(known) < len(value.parts):
            raise Unsupported("its index is not a constant of the sequence")
        walk.values[node.output[0]] = walk.values[value.parts[int(known)]]
        walk.steps.append(Step("Identity", node.name, (value.parts[int(known)],), (node.output[0],), {}))
        return
    if known is None or value.parts or not attributes.get("keepdims", 1):
        raise Unsupported("a split that is not of constant sizes")
    size = value.shapes[0][int(attributes.get("axis", 0))]
    sizes = known.tolist() if known.ndim else [min(int(known), size - at) for at in range(0, size, max(1, int(known)))]
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
    others = _rewrite_first(walk, node, inputs, first, second)
    try:
        others = others or rule(second)
    except Unsupported:
        others = _rewrite(walk, node, inputs, first, second)
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
    elif (
        first.op == "Gather" and inputs[0] is not None and inputs[0].hosts is None and _gather_rows(walk, node, inputs)
    ):
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
        if first.attributes["to"] not in FLOATS:
            raise Unsupported("no gradient passes a cast to whole numbers")
        first.attributes = {}
    names: list[str | None] = list(node.input[: len(first.shapes)])
    if node.op_type == "ConstantOfShape":
        names = [f"{node.output[0]}/value"]
        filler = first.hosts[0]
        assert filler is not None
        walk.constants[f"{node.output[0]}/value"] = filler
        walk.values[f"{node.output[0]}/value"] = Value(((1,), (1,)), (filler, filler))
    else:
        names = [_operand(walk, name, value) for name, value in zip(names, inputs, strict=False)]
    if first.op == "Conv" and len(names) > 2 and names[2] and _is_padding(walk, names[2]):
        names[2] = None
    attributes = {
        key: _merge(value, second.attributes.get(key), walk.probes) for key, value in first.attributes.items()
    }
    outputs = tuple(name for name in node.output if name)
    walk.steps.append(Step(first.op, node.name, tuple(names), outputs, attributes))
    for at, name in enumerate(outputs):
        layout.bear(shapes[1][at])
        walk.values[name] = Value((shapes[0][at], shapes[1][at]), None)


def _gather_rows(walk: Walk, node: NodeProto, inputs: list[Value | None]) -> bool:
    """Indices into a flattened batch, image after image (how the exporter writes a strided view): a per-image Gather."""
    flat, indices = inputs[0], inputs[1]
    assert flat is not None
    assert indices is not None
    if len(flat.shapes[0]) != 1 or flat.shapes[0] == flat.shapes[1] or indices.hosts is None:
        return False
    count, size = walk.probes[0], flat.shapes[0][0] // walk.probes[0]
    first, second = indices.hosts
    if first.shape == second.shape and count == 1 and first.shape[:1] == (1,):
        second = np.concatenate([first, first + size])
        walk.rewritten = True
    own = first.reshape(count, -1)[0]
    for images, array in zip(walk.probes, (first, second), strict=True):
        if array.shape[:1] != (images,) or not np.array_equal(
            array.reshape(images, -1), own + size * np.arange(images)[:, None]
        ):
            return False
    rows, picked, output = f"{node.output[0]}/rows", f"{node.output[0]}/picked", node.output[0]
    shape = (Scaled(1), *first.shape[1:])
    chosen = {"axis": 1, "indices": own.tolist()}
    walk.steps += [
        Step("Reshape", node.name, (node.input[0],), (rows,), {"shape": (Scaled(1), size)}),
        Step("Gather", node.name, (rows,), (picked,), chosen),
        Step("Reshape", node.name, (picked,), (output,), {"shape": shape}),
    ]
    for name, tail in ((rows, (size,)), (picked, (own.size,)), (output, first.shape[1:])):
        walk.values[name] = Value(((walk.probes[0], *tail), (walk.probes[1], *tail)), None)
    return True


def _is_padding(walk: Walk, name: str) -> bool:
    """A bias of zeros that the exporter made up: the file stores none."""
    return not walk.values[name].sources & walk.sizes.keys() and not walk.constants[name].any()


def _operand(walk: Walk, name: str | None, value: Value | None) -> str | None:
    """The name of an input; a constant is taken into the plan with it."""
    if not name or value is None:
        return None
    if value.hosts is not None:
        constant = value.constant
        if constant is None:
            raise Unsupported("a number computed from the batch size meets the images")
        walk.constants[name] = constant
    return name


def _merge(first: Any, second: Any, probes: tuple[int, int]) -> Any:
    """One attribute at both batch sizes: the same, or growing with the batch."""
    if isinstance(first, tuple):
        return tuple(_merge(one, two, probes) for one, two in zip(first, second, strict=True))
    if first == second:
        return first
    if isinstance(first, int) and isinstance(second, int) and first % probes[0] == 0:
        factor = first // probes[0]
        if factor * probes[1] == second:
            return Scaled(factor)
    raise Unsupported("a size is not a multiple of the batch")


def _rewrite_first(
    walk: Walk, node: NodeProto, inputs: list[Value | None], first: Call, second: Call
) -> list[Shape] | None:
    """A constant target in a file of fixed batch ([1, -1]) may fit another batch and yet mix its images."""
    target = inputs[1] if node.op_type == "Reshape" and len(inputs) > 1 else None
    if not walk.fixed or target is None or target.constant is None or first.shape() == second.shape():
        return None
    return _rewrite(walk, node, inputs, first, second)


def _rewrite(walk: Walk, node: NodeProto, inputs: list[Value | None], first: Call, second: Call) -> list[Shape] | None:
    """The same node for another batch size, where the file's own sizes only fit the declared one."""
    if node.op_type in ("Reshape", "Expand"):
        shape = _rescale(inputs[0], first.attributes["shape"], walk.probes) if inputs[0] is not None else None
        if shape is None:
            return None
        second.op, second.attributes = first.op, {"shape": shape}
        second.keep_inputs(1)
        walk.rewritten = True
        return [shape]
    if node.op_type == "Concat":
        return _rewrite_concat(walk, node, inputs, first, second)
    return None


def _rescale(value: Value, target: Shape, probes: tuple[int, int]) -> Shape | None:
    """The target of a Reshape with the batch in its place, which is found by its distance in memory.

    Where a batch of one leaves a choice, an axis of the batch's own size is the likeliest, then the last that does not
    hold features; parity with ONNX Runtime has the last word.
    """
    before, after = value.shapes
    grown = [axis for axis, (one, two) in enumerate(zip(before, after, strict=True)) if one != two]
    if len(grown) != 1 or math.prod(before) != math.prod(target):
        return None
    axis = grown[0]
    stride = math.prod(before[axis:]) // probes[0]
    places = [
        at
        for at in range(len(target))
        if math.prod(target[at + 1 :]) <= stride <= math.prod(target[at:]) and target[at] % probes[0] == 0
    ]
    if not places:
        return None
    own = [at for at in places if target[at] == probes[0]]
    place = own[0] if own else ([at for at in places if at < len(target) - 1] or places)[-1]
    return (*target[:place], target[place] * after[axis] // before[axis], *target[place + 1 :])


def _rewrite_concat(
    walk: Walk, node: NodeProto, inputs: list[Value | None], first: Call, second: Call
) -> list[Shape] | None:
    """A constant of one row joined to a batch (a class token): spread it over the batch first."""
    growing = [value for value in inputs if value is not None and value.shapes[0] != value.shapes[1]]
    if not growing or walk.probes[0] != 1:
        return None
    axis = next(at for at, (one, two) in enumerate(zip(*growing[0].shapes, strict=True)) if one != two)
    for at, value in enumerate(inputs):
        if value is None or value.constant is None:
            continue
        name = f"{node.input[at]}/{node.output[0]}"
        walk.constants[node.input[at]] = value.constant
        shapes = [list(value.shapes[0]), list(value.shapes[1])]
        shapes[1][axis] *= walk.probes[1]
        spread = tuple(_merge(one, two, walk.probes) for one, two in zip(*shapes, strict=True))
        walk.steps.append(Step("Expand", node.name, (node.input[at],), (name,), {"shape": spread}))
        walk.values[name] = inputs[at] = Value((tuple(shapes[0]), tuple(shapes[1])), None)
        node.input[at] = name
    walk.rewritten = True
    second.shapes = [value.shapes[1] if value is not None else None for value in inputs]
    first.hosts = [None] * len(first.hosts)
    second.attributes = {"axis": first.attributes["axis"]}
    try:
        return RULES["Concat"](second)
    except Unsupported:
        return None


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
    return Plan(
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
