"""Building of the `Plan` after all nodes have been visited; only the steps that the logits need are kept."""

import math
from collections import Counter

import numpy as np
from onnx import ModelProto, TensorProto

from dfkd_core.errors import TeacherInvalid
from dfkd_core.interface import OutputType, TeacherInterface
from dfkd_core.onnx_import.ends.convolution_head import with_linear_head
from dfkd_core.onnx_import.ends.embedding import is_embedding
from dfkd_core.onnx_import.ends.linear_head import fold_factor, widen_to_two
from dfkd_core.onnx_import.ends.no_operations import drop_no_operations
from dfkd_core.onnx_import.ends.output_form import Head, read_head
from dfkd_core.onnx_import.ends.signature import Signature
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import Plan, Shape, Step
from dfkd_core.onnx_import.ir.state import GraphState

OUTPUTS: dict[int, OutputType] = {
    TensorProto.UNDEFINED: "float32",
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
}
MAX_MACS = 10**12  # multiply-adds for one image; a ViT-L on 384 pixels takes 2e11
MAX_ACTIVATIONS = 2**29  # elements of all values for one image: 2 GiB of float32


def assemble(state: GraphState, model: ModelProto, signature: Signature, done: list[str]) -> Plan:
    """Return the plan of a model whose nodes have all been visited; `done` names what the normalisation changed.

    Raises:
        TeacherInvalid: the output is not one row of numbers, does not depend on the images, or is too costly.
        OperatorUnsupported: the output holds independent probabilities.
    """
    name = model.graph.output[0].name
    value = state.values[name]
    if value.const_values is not None or value.parts:
        raise TeacherInvalid("the output of the ONNX graph does not depend on its input")
    steps, name = drop_no_operations(_alive(state.steps, name), state, name)
    makers = {made: step for step in steps for made in step.outputs}
    embeds = is_embedding(makers, state, name)
    head = read_head(state, makers, name)
    steps = _with_logits(state, steps, head)
    used = {operand for step in steps for operand in step.inputs if operand}
    if signature.images not in used:
        raise TeacherInvalid("the output of the ONNX graph does not depend on its input")
    interface = _interface(model, signature, head)
    plan = Plan(
        interface=interface,
        input_name=signature.images,
        output_name=head.logits,
        head=head.value,
        head_form=head.form,
        head_is_reversed=head.is_reversed,
        input_shape=signature.shape,
        num_classes=interface.num_classes,
        batch="fixed" if signature.batch else "dynamic",
        declared_batch=signature.batch,
        opset=state.opset,
        steps=tuple(steps),
        constants={key: array for key, array in state.constants.items() if key in used},
        learned=_learned(state, steps),
        shapes={
            key: _for_one(entry.shapes, state.batch_sizes) for key, entry in state.values.items() if not entry.parts
        },
        operators=dict(Counter(node.op_type for node in model.graph.node)),
        normalisations=(*done, *head.notes, *_further(state, model, signature)),
        is_embedding=embeds,
    )
    _check_size(plan)
    return plan


def _with_logits(state: GraphState, steps: list[Step], head: Head) -> list[Step]:
    """Return the steps up to the logits (N, num_classes)."""
    steps = _alive(steps, head.value)
    fold_factor(state, steps, head)
    if head.form == "logits":
        steps = with_linear_head(state, steps, head)
    widen_to_two(state, steps, head)
    for step in head.steps:
        state.declare(step.outputs[0], _row(step, head))
    return _alive([*steps, *head.steps], head.logits)


def _row(step: Step, head: Head) -> Shape:
    """Return the shape, for one image, of the result of a step of the head: one row of numbers."""
    size = math.prod(head.shape)
    return (2,) if size == 1 and step.op in ("Pad", "Gemm", "MatMul", "Add", "Concat") else (size,)


def _interface(model: ModelProto, signature: Signature, head: Head) -> TeacherInterface:
    output = model.graph.output[0]
    kind: OutputType | None = OUTPUTS.get(int(output.type.tensor_type.elem_type))
    if kind is None:
        raise TeacherInvalid(
            f"the output of the ONNX graph ({readable(output.name)}) does not hold real numbers",
            hint="Name an output of logits or probabilities in teacher.output, or export the network with one.",
        )
    return TeacherInterface(
        input_name=signature.name,
        input_type=signature.element,
        layout=signature.layout,
        input_rank=signature.rank,
        output_name=output.name,
        output_type=kind,
        output_form=head.output_form,
        output_shape=list(head.output_shape),
    )


def _check_size(plan: Plan) -> None:
    """Check the cost of a plan, and that its constants are numbers.

    Raises:
        TeacherInvalid: one image takes too many multiply-adds or values, or a constant holds NaN.
    """
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


def _for_one(shapes: tuple[Shape, Shape], batch_sizes: tuple[int, int]) -> Shape:
    return tuple(one if one == two else one // batch_sizes[0] for one, two in zip(*shapes, strict=True))


def _alive(steps: list[Step], output: str) -> list[Step]:
    """Return the steps that the output depends on, in their original order."""
    needed = {output}
    kept = []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            needed.update(name for name in step.inputs if name)
            kept.append(step)
    return kept[::-1]


def _learned(state: GraphState, steps: list[Step]) -> dict[str, int]:
    sources: set[str] = set()
    for step in steps:
        weights = step.inputs[:3] if step.op == "BatchNormalization" else step.inputs
        for name in weights:
            if name in state.constants:
                sources |= state.values[name].sources
    return {name: state.sizes[name] for name in sorted(sources) if name in state.sizes}


def _further(state: GraphState, model: ModelProto, signature: Signature) -> list[str]:
    found = []
    if signature.layout == "NHWC":
        found.append("channels-last-to-first")
    if signature.rank < 4:
        found.append("input-reshaped")
    if signature.element == "uint8":
        found.append("uint8-to-float32")
    if state.rewritten or signature.batch:
        found.append("fixed-batch-rewritten")
    types = {tensor.data_type for tensor in model.graph.initializer}
    weights = {tensor.data_type for tensor in model.graph.initializer if tensor.dims}
    if TensorProto.FLOAT16 in types or signature.element == "float16":
        found.append("float16-to-float32")
    if TensorProto.DOUBLE in weights or signature.element == "float64":
        found.append("float64-to-float32")
    return found
