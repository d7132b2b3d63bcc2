"""Reading of an ONNX file: its plan, and the normalised model that ONNX Runtime runs to verify the plan."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from onnx import ModelProto

from dfkd_core.onnx_import.canonicalize import check_signature, normalize
from dfkd_core.onnx_import.ir.parse import opset_of, read_model
from dfkd_core.onnx_import.ir.plan import Plan, Shape
from dfkd_core.onnx_import.single_precision import to_single_precision
from dfkd_core.onnx_import.specialize import specialize
from dfkd_core.onnx_import.upgrade import upgrade


class ParsedOnnx(NamedTuple):
    """The result of reading a file once; inspection, network and verification are all made from it."""

    plan: Plan
    model: ModelProto  # the model in eval mode and without float64, whose output is the logits


def read_plan(path: Path, *, input_shape: Shape | None = None) -> ParsedOnnx:
    """Read a file; `input_shape` (C, H, W) replaces the sizes that the file leaves open.

    Raises:
        TeacherInvalid: the file is broken, or is no image classifier.
        OperatorUnsupported: some nodes are outside the importer's list.
        TeacherMismatch: the file contradicts `input_shape`, or needs one.
    """
    model = read_model(path)
    declared = opset_of(model)
    done = upgrade(model)
    check_signature(model)
    done += normalize(model)
    plan = replace(specialize(model, done, input_shape=input_shape), opset=declared)
    to_single_precision(model)
    return ParsedOnnx(plan, model)
