"""Inspects a teacher in a child process, unless the result is already stored with the teacher.

The result depends on the file, on the version of our code and on what the spec says about the teacher: the architecture
of a safetensors file; shape and layout of the images and the output's name, if the ONNX graph leaves them open.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

import dfkd_core
from dfkd_core.inspection.child import inspect_in_child
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.limits import CostLimits
from dfkd_core.spec.teacher import TeacherSpec
from jobs.models import DEPTH, SAID, TeacherRef
from jobs.settings import Settings

Facts = dict[str, Any]  # Any: JSON

TOLD_SHAPE, TOLD_LAYOUT, TOLD_OUTPUT = "told_shape", "told_layout", "told_output"
INSPECTED_BY = "inspected_by"
BESIDE = {TOLD_SHAPE, TOLD_LAYOUT, TOLD_OUTPUT, INSPECTED_BY, DEPTH, SAID}
"""What is stored with an inspection, but no part of it."""


def inspect(path: Path, spec: TeacherSpec, settings: Settings, *, known: TeacherRef | None = None) -> Inspection:
    """Return the inspection of the file; taken from `known` if that was made under the same conditions."""
    found = None if known is None else recalled(known, spec)
    return found or inspect_in_child(
        path,
        spec,
        timeout_seconds=settings.inspection_timeout_seconds,
        memory_bytes=settings.inspection_memory_bytes,
        sandbox=settings.sandbox,
        hidden=(settings.data_dir,),
    )


def facts(inspection: Inspection, spec: TeacherSpec) -> Facts:
    """Return the inspection as it is stored with the teacher, with the conditions under which it was made."""
    return {
        **inspection.model_dump(mode="json"),
        **_told(spec),
        INSPECTED_BY: dfkd_core.__version__,
    }


def recalled(known: TeacherRef, spec: TeacherSpec) -> Inspection | None:
    """Return the stored inspection, if a new one under `spec` would give the same result; else None."""
    kept = known.inspection
    if kept.get(INSPECTED_BY) != dfkd_core.__version__ or spec.architecture is not None:
        return None
    found = inspection_of(known)
    if found is None or (found.input_shape is not None and found.input_space is None):
        return None
    facts_of_file = {
        TOLD_SHAPE: found.input_shape,
        TOLD_LAYOUT: found.interface and found.interface.layout,
        TOLD_OUTPUT: found.output_name,
    }
    for name, told in _told(spec).items():
        if told != kept.get(name) and (told is None or told != facts_of_file[name]):
            return None
    return found


def inspection_of(known: TeacherRef) -> Inspection | None:
    """Return the inspection that is stored with a teacher; None if this version of the service cannot read it."""
    kept = {name: value for name, value in known.inspection.items() if name not in BESIDE}
    try:
        return Inspection.model_validate(kept)
    except ValidationError:
        return None


def cost_limits(settings: Settings) -> CostLimits:
    """Return the limits on what a teacher may cost on this installation."""
    return CostLimits(macs=settings.max_teacher_macs, activation_bytes=settings.max_activation_bytes)


def _told(spec: TeacherSpec) -> Facts:
    """Return what the spec says of the file besides its architecture."""
    shape = spec.told_shape
    return {
        TOLD_SHAPE: None if shape is None else list(shape),
        TOLD_LAYOUT: spec.told_layout,
        TOLD_OUTPUT: spec.output,
    }
