"""One ONNX file → its plan, and the normalised model that ONNX Runtime runs to check the plan against."""

from pathlib import Path

from onnx import ModelProto

from dfkd_core.onnx_import.canonicalize import check_signature, normalize
from dfkd_core.onnx_import.ir.parse import read_model
from dfkd_core.onnx_import.ir.plan import Plan, Shape
from dfkd_core.onnx_import.specialize import specialize


def read_plan(path: Path, *, input_shape: Shape | None = None) -> tuple[Plan, ModelProto]:
    """The plan of a file and the model in eval mode with logits as output.

    Raises TeacherInvalid, OperatorUnsupported or TeacherMismatch; `input_shape` (C, H, W) fills what the file leaves
    open.
    """
    model = read_model(path)
    check_signature(model)
    done = normalize(model)
    return specialize(model, done, input_shape=input_shape), model
