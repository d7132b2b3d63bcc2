"""The inspection of a file with the estimate of its input space, which takes some seconds more than the file alone."""

import logging
from pathlib import Path
from typing import Any

from dfkd_core.inspection.formats.safetensors_header import read_header, read_tensors
from dfkd_core.inspection.input_space.conventions import without_evidence
from dfkd_core.inspection.input_space.estimate import estimate_input
from dfkd_core.inspection.input_space.half_size import takes_half_size
from dfkd_core.inspection.inspection import Inspection, parse_file
from dfkd_core.inspection.named_teacher import describe_teacher
from dfkd_core.narrowing.catalogue import plan_of
from dfkd_core.onnx_import.ir.plan import Plan
from dfkd_core.onnx_import.reader import ParsedOnnx
from dfkd_core.options.base import HALF_SIZE
from dfkd_core.planning.nominal import are_large
from dfkd_core.spec.teacher import TeacherSpec

log = logging.getLogger(__name__)


def inspect_with_input_space(path: Path, spec: TeacherSpec) -> tuple[Inspection, ParsedOnnx | None]:
    """Return what `parse_file` returns, with `input_space` where the shape of the images is known.

    A teacher of large images that takes images of half the size too offers "half-size". Whatever goes wrong with the
    estimate, the file is not refused for it: its input space is then unknown.

    Raises:
        TeacherError: the file cannot serve as a teacher; the subclass says why.
    """
    inspection, parsed = parse_file(path, spec)
    if inspection.input_shape is None:
        return inspection, parsed
    found: dict[str, Any] = {"input_space": without_evidence(inspection.input_shape[0])}
    try:
        plan = _plan_of_weights(path, spec) if parsed is None else parsed.plan
        folded = inspection.batchnorm.status in ("folded", "partial", "unknown")
        found["input_space"] = estimate_input(plan, spec.input, folded=folded)
        if are_large(inspection.input_shape) and takes_half_size(plan):
            found["offers"] = [*inspection.offers, HALF_SIZE]
    except Exception:  # NumPy may raise anything on a network that is made to be odd
        log.warning("the input space of a teacher could not be estimated", exc_info=True)
    return inspection.model_copy(update=found), parsed


def _plan_of_weights(path: Path, spec: TeacherSpec) -> Plan:
    """Return the plan of a named architecture with the weights of its safetensors file."""
    header = read_header(path)
    return plan_of(describe_teacher(spec, header), dict(read_tensors(path, header)))
