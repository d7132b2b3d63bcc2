"""Import ONNX teachers: build a frozen PyTorch network from a checked file."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.onnx_import.batchnorm import batchnorm_of
from dfkd_core.onnx_import.ir.plan import Plan, Step
from dfkd_core.onnx_import.reader import ParsedOnnx, read_plan
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers.fx_builder import classifier_of, network_from_plan
from dfkd_core.teachers.input_space import space_of, warnings_of


def load_onnx(path: Path, spec: TeacherSpec, parsed: ParsedOnnx | None = None) -> Teacher:
    """Build the teacher of an ONNX file. `parsed` is the file as parsed before; without it the file is read here.

    Raises:
        TeacherError: the file cannot serve as a teacher; the inspection refuses it for the same reasons.
    """
    plan, model = parsed or read_plan(path, input_shape=spec.told_shape, layout=spec.told_layout, output=spec.output)
    space = space_of(spec.input, plan.input_shape, plan.interface)
    network = network_from_plan(with_pixels(plan, space))
    status, _ = batchnorm_of(plan, model)
    return Teacher(
        network,
        space,
        num_classes=plan.num_classes,
        classifier=classifier_of(network, plan.num_classes),
        warnings=warnings_of(space, folded=status in ("folded", "partial", "unknown")),
        interface=plan.interface,
    )


def with_pixels(plan: Plan, space: InputSpace) -> Plan:
    """Return the plan that takes the values of the input space, and turns them into the pixels that the graph takes."""
    if not space.is_scaled:
        return plan
    images, stretched = f"{plan.input_name}/scaled/", f"{plan.input_name}/stretched/"
    factor, offset = f"{plan.input_name}/factor/", f"{plan.input_name}/offset/"
    steps = (
        Step("Mul", "(pixels)", (images, factor), (stretched,), {}),
        Step("Add", "(pixels)", (stretched, offset), (plan.input_name,), {}),
    )
    shape = plan.shapes[plan.input_name]
    return replace(
        plan,
        input_name=images,
        steps=(*steps, *plan.steps),
        constants={**plan.constants, factor: np.array(space.scale, "f4"), offset: np.array(space.offset, "f4")},
        shapes={**plan.shapes, images: shape, stretched: shape, factor: (), offset: ()},
    )
