"""The structural inspection of a teacher: in its throw-away child, and only once where its result is known.

What the child finds depends on the file, on the version of its code, and on what the spec says about the teacher: the
architecture of a safetensors file, and the shape of the images where an ONNX graph leaves it open.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

import dfkd_core
from dfkd_core.inspection.child import inspect_in_child
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.limits import CostLimits
from dfkd_core.spec.config import TeacherSpec
from jobs.models import DEPTH, TeacherRef
from jobs.settings import Settings

Facts = dict[str, Any]  # Any: JSON

TOLD_SHAPE = "told_shape"
INSPECTED_BY = "inspected_by"
BESIDE = {TOLD_SHAPE, INSPECTED_BY, DEPTH}  # what is kept with an inspection and is no part of it


def inspect(path: Path, spec: TeacherSpec, settings: Settings, *, known: TeacherRef | None = None) -> Inspection:
    """What the file is; from `known` where that was found under the same circumstances."""
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
    """An inspection as it is kept with its teacher, with the circumstances."""
    return {
        **inspection.model_dump(mode="json"),
        TOLD_SHAPE: _told_shape(spec),
        INSPECTED_BY: dfkd_core.__version__,
    }


def recalled(known: TeacherRef, spec: TeacherSpec) -> Inspection | None:
    """A kept inspection, if inspecting anew under `spec` would find the same."""
    kept = known.inspection
    if kept.get(INSPECTED_BY) != dfkd_core.__version__ or spec.architecture is not None:
        return None
    told = _told_shape(spec)
    if told != kept.get(TOLD_SHAPE) and (told is None or told != kept.get("input_shape")):
        return None
    return inspection_of(known)


def inspection_of(known: TeacherRef) -> Inspection | None:
    """The inspection that is kept with a teacher; None where another version of the service wrote it."""
    kept = {name: value for name, value in known.inspection.items() if name not in BESIDE}
    try:
        return Inspection.model_validate(kept)
    except ValidationError:
        return None


def cost_limits(settings: Settings) -> CostLimits:
    """What a teacher may cost here."""
    return CostLimits(macs=settings.max_teacher_macs, activation_bytes=settings.max_activation_bytes)


def _told_shape(spec: TeacherSpec) -> list[int] | None:
    return None if spec.input is None else list(spec.input.shape)
