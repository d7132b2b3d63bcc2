"""Load teachers. Each file format has a module that returns a frozen `Teacher`."""

from pathlib import Path

from dfkd_core.errors import TeacherMismatch
from dfkd_core.inspection.formats.detection import TeacherFormat, teacher_format
from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.onnx_import.reader import ParsedOnnx
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers.onnx import load_onnx
from dfkd_core.teachers.safetensors import load_safetensors

__all__ = ["InputSpace", "Teacher", "load_teacher"]


def load_teacher(path: Path, spec: TeacherSpec, *, parsed: ParsedOnnx | None = None) -> Teacher:
    """Load the teacher of a file: frozen, float32, on the CPU. The file's content determines the format.

    `parsed` is the ONNX file as the inspection has parsed it; without it the file is read here.

    Raises:
        TeacherError: the file cannot serve as a teacher; the subclass says why.
    """
    found = teacher_format(path, claimed=spec.format)
    teacher = load_onnx(path, spec, parsed) if found is TeacherFormat.ONNX else load_safetensors(path, spec)
    if spec.num_classes not in (None, teacher.num_classes):
        raise TeacherMismatch(
            f"the file gives {teacher.num_classes} logits, the spec says {spec.num_classes}",
            pointer="/teacher/num_classes",
        )
    return teacher
