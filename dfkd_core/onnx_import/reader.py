"""Reading of an ONNX file: its plan, and the normalised model that ONNX Runtime runs to verify the plan."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from onnx import ModelProto

from dfkd_core.interface import Layout
from dfkd_core.onnx_import.canonicalize import normalize, select_output
from dfkd_core.onnx_import.ir.parse import check_nodes, opset_of, read_model
from dfkd_core.onnx_import.ir.plan import Plan, Shape
from dfkd_core.onnx_import.single_precision import to_single_precision
from dfkd_core.onnx_import.specialize import specialize
from dfkd_core.onnx_import.upgrade import upgrade


class ParsedOnnx(NamedTuple):
    """The result of reading a file once; inspection, network and verification are all made from it."""

    plan: Plan
    model: ModelProto  # the model in eval mode and without float64, with one output


def read_plan(
    path: Path, *, input_shape: Shape | None = None, layout: Layout | None = None, output: str | None = None
) -> ParsedOnnx:
    """Read a file. What the file leaves open is told: sizes by `input_shape` (C, H, W), where the channels are by
    `layout`, and which of several outputs holds the classes by `output`.

    Raises:
        TeacherInvalid: the file is broken, or is no image classifier.
        OperatorUnsupported: some nodes are outside the importer's list.
        TeacherMismatch: the file contradicts what was told, or needs more.
    """
    model = read_model(path)
    declared = opset_of(model)
    later = select_output(model, output)
    check_nodes(model)  # those of the other outputs do not matter
    done = upgrade(model)
    done += normalize(model)
    plan = specialize(model, done, input_shape=input_shape, layout=layout)
    to_single_precision(model)
    return ParsedOnnx(replace(plan, opset=declared, later_output=later), model)
