"""Import ONNX teachers: build a frozen PyTorch network from a checked file."""

from pathlib import Path

from dfkd_core.networks.teacher import Teacher
from dfkd_core.onnx_import.batchnorm import batchnorm_of
from dfkd_core.onnx_import.reader import ParsedOnnx, read_plan
from dfkd_core.spec.config import TeacherSpec
from dfkd_core.teachers.fx_builder import classifier_of, network_from_plan
from dfkd_core.teachers.input_space import space_of, warnings_of


def load_onnx(path: Path, spec: TeacherSpec, parsed: ParsedOnnx | None = None) -> Teacher:
    """Build the teacher of an ONNX file. `parsed` is the file as parsed before; without it the file is read here.

    Raises:
        TeacherError: the file cannot serve as a teacher; the inspection refuses it for the same reasons.
    """
    shape = None if spec.input is None else tuple(spec.input.shape)
    plan, model = parsed or read_plan(path, input_shape=shape)
    network = network_from_plan(plan)
    status, _ = batchnorm_of(plan, model)
    return Teacher(
        network,
        space_of(spec.input, plan.input_shape),
        num_classes=plan.num_classes,
        classifier=classifier_of(network, plan.num_classes),
        warnings=warnings_of(spec.input, folded=status in ("folded", "partial", "unknown")),
    )
