"""A safetensors teacher: the file must hold exactly the tensors of the named architecture (torch-free)."""

from collections.abc import Mapping, Sequence

from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.errors import StudentError, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.safetensors_header import TensorInfo
from dfkd_core.spec.teacher import TeacherSpec

COUNTERS = (".num_batches_tracked", ".draws", ".seed")  # integers that only training needs
SHOWN = 20


def describe_teacher(spec: TeacherSpec, header: Mapping[str, TensorInfo]) -> NetworkDescription:
    """Return the description of the architecture that the spec names, with as many classes as the file has.

    Raises:
        TeacherMismatch: the spec lacks the architecture or the image shape, or the file holds another network.
        TeacherInvalid: a tensor does not hold real numbers.
    """
    if spec.architecture is None:
        raise TeacherMismatch(
            "a safetensors teacher needs the name of its architecture",
            hint="Give teacher.architecture; GET /menu lists the students, which are its possible names.",
            pointer="/teacher/architecture",
        )
    shape = spec.told_shape
    if shape is None:
        raise TeacherMismatch(
            "a safetensors teacher needs the shape of its images",
            hint="Give teacher.input.shape [channels, height, width].",
            pointer="/teacher/input",
        )
    classes = spec.num_classes or _classes(spec, header)
    description = _described(spec, shape, classes)
    check_tensors(description.tensors(), header)
    return description


def check_tensors(wanted: Mapping[str, tuple[int, ...]], header: Mapping[str, TensorInfo]) -> None:
    """Check that names and shapes match exactly, except for counters.

    Raises:
        TeacherMismatch: they differ; the error lists the first 20 differences.
        TeacherInvalid: a tensor does not hold real numbers.
    """
    problems = [f"{name} is missing" for name in wanted if name not in header]
    for name, info in header.items():
        if name.endswith(COUNTERS) and name not in wanted:
            if info.dtype not in ("I64", "I32"):
                problems.append(f"{name} should be a whole number")
        elif name not in wanted:
            problems.append(f"{name} is not part of it")
        elif info.shape != wanted[name]:
            problems.append(f"{name} has shape {list(info.shape)}, not {list(wanted[name])}")
        elif not info.dtype.startswith("F"):
            raise TeacherInvalid(f"tensor {name} does not hold real numbers", hint="Store float32 weights.")
    if problems:
        more = f" … and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise TeacherMismatch(
            f"the file does not hold this architecture: {'; '.join(problems[:SHOWN])}{more}",
            hint="Check teacher.architecture, width, input.shape and num_classes; strip prefixes such as `module.`.",
            pointer="/teacher/architecture",
        )


def _described(spec: TeacherSpec, shape: Sequence[int], classes: int) -> NetworkDescription:
    try:
        return describe(
            str(spec.architecture),
            input_shape=shape,
            num_classes=classes,
            width=1.0 if spec.width is None else spec.width,
        )
    except StudentError as error:
        pointer = (error.pointer or "/student/architecture").replace("/student", "/teacher")
        raise TeacherMismatch(error.detail, hint=error.hint, pointer=pointer) from error


def _classes(spec: TeacherSpec, header: Mapping[str, TensorInfo]) -> int:
    """Return the number of classes: the rows of the last linear weight (classes, features) in the file."""
    assert spec.told_shape is not None
    weights = _described(spec, spec.told_shape, 2).body.weights()
    last = [name for name, shape in weights.items() if len(shape) == 2][-1]
    if last not in header or len(header[last].shape) != 2 or header[last].shape[0] < 2:
        raise TeacherMismatch(
            f"the file does not hold this architecture: {last} is missing or is no matrix",
            pointer="/teacher/architecture",
        )
    return header[last].shape[0]
