"""A safetensors teacher: the file must hold exactly the tensors of the named architecture (torch-free)."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.errors import StudentError, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.formats.safetensors_header import TensorInfo
from dfkd_core.spec.teacher import TeacherSpec

COUNTERS = (".num_batches_tracked", ".draws", ".seed")  # integers that only training needs
SHOWN = 20
OTHER_IMPLEMENTATION = (
    "Weights of another implementation (torchvision, timm, transformers, your own) come with their network: "
    "dfkd submit module:Net --weights FILE --shape C,H,W, or dfkd.compress(model, …) in Python."
)


class Difference(NamedTuple):
    """One difference between the tensors of a network and those of a file."""

    kind: str  # missing, not part of it, of another shape, of another type
    text: str


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
        TeacherMismatch: they differ; the error counts the differences and lists the first 20.
        TeacherInvalid: a tensor does not hold real numbers.
    """
    problems = differences(wanted, {name: info.shape for name, info in header.items()})
    for name, info in header.items():
        if name.endswith(COUNTERS) and name not in wanted:
            if info.dtype not in ("I64", "I32"):
                problems.append(Difference("of another type", f"{name} should be a whole number"))
        elif info.shape == wanted.get(name) and not info.dtype.startswith("F"):
            raise TeacherInvalid(f"tensor {name} does not hold real numbers", hint="Store float32 weights.")
    if problems:
        raise TeacherMismatch(
            f"the file does not hold this architecture: {summary(problems)}",
            hint="Check teacher.architecture, teacher.width, teacher.input.shape and teacher.num_classes; strip "
            f"prefixes such as `module.`. {OTHER_IMPLEMENTATION}",
            pointer="/teacher/architecture",
        )


def differences(
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    *,
    optional: tuple[str, ...] = COUNTERS,
) -> list[Difference]:
    """Return where names and shapes differ: what is missing, then the rest in the order of `found`.

    Tensors whose names end with one of `optional` may be on one side alone.
    """
    problems = [
        Difference("missing", f"{name} is missing")
        for name in wanted
        if name not in found and not name.endswith(optional)
    ]
    for name, shape in found.items():
        if name in wanted and shape != wanted[name]:
            text = f"{name} has shape {list(shape)}, not {list(wanted[name])}"
            problems.append(Difference("of another shape", text))
        elif name not in wanted and not name.endswith(optional):
            problems.append(Difference("not part of it", f"{name} is not part of it"))
    return problems


def summary(problems: Sequence[Difference]) -> str:
    """Return the number of differences of each kind, and the first 20 of them, some of every kind."""
    kinds = list(dict.fromkeys(problem.kind for problem in problems))
    counts = ", ".join(f"{sum(problem.kind == kind for problem in problems)} {kind}" for kind in kinds)
    by_turns = [
        problem.text
        for row in zip_longest(*([one for one in problems if one.kind == kind] for kind in kinds))
        for problem in row
        if problem is not None
    ]
    shown = set(by_turns[:SHOWN])
    listed = "; ".join(problem.text for problem in problems if problem.text in shown)
    more = f" … and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{counts}: {listed}{more}"


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
    """Return the number of classes: the rows of the last linear weight (classes, features) in the file.

    Where that weight is missing, the rows of the file's last matrix: `check_tensors` then says what differs.
    """
    assert spec.told_shape is not None
    weights = _described(spec, spec.told_shape, 2).body.weights()
    last = [name for name, shape in weights.items() if len(shape) == 2][-1]
    if last not in header:
        return next(
            (info.shape[0] for info in reversed(list(header.values())) if len(info.shape) == 2 and info.shape[0] > 1), 2
        )
    if len(header[last].shape) != 2 or header[last].shape[0] < 2:
        raise TeacherMismatch(
            f"the file does not hold this architecture: {last} is no matrix of two rows or more",
            hint=OTHER_IMPLEMENTATION,
            pointer="/teacher/architecture",
        )
    return header[last].shape[0]
