"""Building of the `Plan` after all nodes have been visited; only the steps that the logits need are kept."""

from collections import Counter

import numpy as np
from onnx import ModelProto, TensorProto

from dfkd_core.errors import TeacherInvalid
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import Plan, Shape, Step
from dfkd_core.onnx_import.ir.state import GraphState
from dfkd_core.onnx_import.signature import Signature

MAX_MACS = 10**12  # multiply-adds for one image; a ViT-L on 384 pixels takes 2e11
MAX_ACTIVATIONS = 2**29  # elements of all values for one image: 2 GiB of float32


def assemble(state: GraphState, model: ModelProto, signature: Signature, done: list[str]) -> Plan:
    """Return the plan of a model whose nodes have all been visited; `done` names what the normalisation changed.

    Raises:
        TeacherInvalid: the output is not (N, classes), does not depend on the images, or is too costly.
    """
    name = model.graph.output[0].name
    value = state.values[name]
    if value.const_values is not None or value.parts:
        raise TeacherInvalid("the output of the ONNX graph does not depend on its input")
    one, two = value.shapes
    if len(one) != 2 or (one[0], two[0]) != state.batch_sizes or one[1] != two[1]:
        raise TeacherInvalid(
            f"the output of the ONNX graph has shape {list(one)} for {state.batch_sizes[0]} images, not (N, classes)",
            hint="A teacher returns one row of logits for each image.",
        )
    if one[1] < 2:
        raise TeacherInvalid("the teacher has one class only", hint="Two-class teachers return two logits.")
    steps = _alive(state.steps, name)
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
        opset=state.opset,
        element=signature.element,
        steps=tuple(steps),
        constants={key: array for key, array in state.constants.items() if key in used},
        learned=_learned(state, steps),
        shapes={
            key: _for_one(entry.shapes, state.batch_sizes) for key, entry in state.values.items() if not entry.parts
        },
        operators=dict(Counter(node.op_type for node in model.graph.node)),
        normalisations=(*done, *_further(state, model, signature)),
    )
    _check_size(plan)
    return plan


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
    if state.rewritten or signature.batch:
        found.append("fixed-batch-rewritten")
    types = {tensor.data_type for tensor in model.graph.initializer}
    weights = {tensor.data_type for tensor in model.graph.initializer if tensor.dims}
    if TensorProto.FLOAT16 in types or signature.element == "float16":
        found.append("float16-to-float32")
    if TensorProto.DOUBLE in weights or signature.element == "float64":
        found.append("float64-to-float32")
    return found
