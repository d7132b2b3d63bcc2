"""The facts from which the work of a run follows, gathered from an inspection, a spec and a student's description."""

from dataclasses import replace

from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.narrowed import describe_narrowed
from dfkd_core.planning.sizes import FLOAT_BYTES, NORMALISED_FROM, NetworkSize, is_normalised, size_of_description
from dfkd_core.planning.work import RunFacts
from dfkd_core.spec.config import DistillSpec

NORMALISING = ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization")
USUAL_OPERATIONS = 60  # of a teacher whose file holds weights alone


def run_facts(spec: DistillSpec, inspection: Inspection, student: NetworkDescription | None) -> RunFacts:
    """Return the facts of a resolved spec; `student` is None for the narrowed teacher.

    The size of a narrowed teacher follows from the groups of its channels. Where they are unknown, it is that of the
    teacher, scaled by the width.
    """
    assert inspection.input_shape is not None  # `resolve` has made sure of it
    assert inspection.num_classes is not None
    renormalise = spec.distillation.training.renormalise
    teacher = _teacher(inspection)
    if student is None:
        size = _narrowed(spec, inspection, teacher)
        own, normalised = (_narrowed_is_normalised(inspection, renormalise=may) for may in (False, renormalise))
    else:
        size = size_of_description(student)
        own, normalised = (is_normalised(student, renormalise=may) for may in (False, renormalise))
    channels, height, breadth = inspection.input_shape
    return RunFacts(
        teacher=teacher,
        student=size,
        shape=(channels, height, breadth),
        num_classes=inspection.num_classes,
        offers=frozenset(inspection.offers),
        normalised=normalised,
        temporary_batchnorm=normalised and not own,
    )


def _teacher(inspection: Inspection) -> NetworkSize:
    values = inspection.activation_bytes
    macs = inspection.macs or inspection.parameters
    return NetworkSize(
        macs=macs,
        activation_bytes=values if values is not None else FLOAT_BYTES * macs // 100,
        parameters=inspection.parameters,
        operations=sum(inspection.operators.values()) or USUAL_OPERATIONS,
    )


def _narrowed(spec: DistillSpec, inspection: Inspection, teacher: NetworkSize) -> NetworkSize:
    copy = describe_narrowed(inspection, spec.student)
    if copy is None:
        return teacher.scaled(_width(spec, inspection))
    figures = copy.figures
    return replace(teacher, macs=figures.macs, activation_bytes=figures.activation_bytes, parameters=figures.parameters)


def _width(spec: DistillSpec, inspection: Inspection) -> float:
    limit = spec.student.parameter_limit(inspection.parameters)
    return spec.student.width if limit is None else min(1.0, limit / max(1, inspection.parameters)) ** 0.5


def _narrowed_is_normalised(inspection: Inspection, *, renormalise: bool) -> bool:
    if inspection.batchnorm.present or "batchnorm" in inspection.offers:
        return True
    others = any(name in inspection.operators for name in NORMALISING)
    return renormalise and not others and inspection.operators.get("Conv", 0) >= NORMALISED_FROM
