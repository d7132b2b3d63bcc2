"""Checks, before any training, that teacher, student, method and memory fit together. This module is torch-free."""

from typing import Any, TypeVar

from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.errors import RequirementError, StudentError, StudentNotSmaller, TeacherMismatch
from dfkd_core.inspection.auto_method import resolve_auto
from dfkd_core.inspection.input_space.conventions import without_evidence
from dfkd_core.inspection.input_space.notices import agrees, input_notices
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.narrowed import describe_narrowed
from dfkd_core.inspection.run_facts import run_facts
from dfkd_core.inspection.suitability import lacking
from dfkd_core.notice import Notice
from dfkd_core.options.base import HALF_SIZE
from dfkd_core.options.registry import MEMORIES
from dfkd_core.planning.effort import resolve_effort
from dfkd_core.planning.micro_batches import ACTIVATION_BYTES, with_micro_batches
from dfkd_core.planning.width_advice import width_advice
from dfkd_core.spec.config import PRUNED_TEACHER, DistillSpec, StudentSpec
from dfkd_core.spec.teacher import InputSpec, TeacherSpec

_LISTED = {"method": "GET /menu lists the methods", "memory": f"there are {', '.join(MEMORIES)}"}

S = TypeVar("S", bound=DistillSpec)


def resolve(
    spec: S, inspection: Inspection, *, activation_bytes: int = ACTIVATION_BYTES
) -> tuple[S, NetworkDescription | None, list[Notice]]:
    """Return the spec completed with facts of the file and all numbers, the description of the student, and warnings.

    A spec that was resolved before stays as it is. A student that is the pruned teacher has no description, because its
    layers follow from the teacher's graph. `activation_bytes` limits what is computed at a time.

    Raises:
        TeacherMismatch: the file contradicts the spec, or a fact is missing.
        StudentError: the student cannot be built for these images and classes.
        StudentNotSmaller: the student has at least as many parameters as the teacher.
        RequirementError: the teacher does not offer what the method or the memory needs.
    """
    teacher = resolve_teacher(spec.teacher, inspection)
    shape = teacher.told_shape
    assert shape is not None
    assert teacher.num_classes is not None
    student, narrowed = None, None
    if spec.student.architecture == PRUNED_TEACHER:
        _check_pruned_size(spec.student, inspection)
        narrowed = describe_narrowed(inspection, spec.student)
    else:
        student = describe(
            spec.student.architecture,
            input_shape=shape,
            num_classes=teacher.num_classes,
            width=spec.student.width,
            options=spec.student.options,
        )
        check_smaller(student.name, student.parameters, inspection.parameters)
    spec = _with_numbers(
        spec.model_copy(update={"teacher": teacher}), inspection, student, activation_bytes=activation_bytes
    )
    _check_needs(spec, inspection)
    little = [narrowed.notice] if narrowed is not None and narrowed.notice is not None else []
    advice = width_advice(spec.student, spec.distillation, shape)
    return spec, student, [*inspection.warnings, *input_warnings(spec.teacher, inspection), *little, *advice]


def _with_numbers(spec: S, inspection: Inspection, student: NetworkDescription | None, *, activation_bytes: int) -> S:
    """Return the spec with its method and the numbers of its effort, where the caller leaves them open."""
    asked = spec.distillation.model_dump(mode="json", exclude_unset=True)
    config, usual = resolve_auto(spec.distillation, inspection, spec.student)
    spec = spec.model_copy(update={"distillation": config})
    facts = run_facts(spec, inspection, student)
    config = with_micro_batches(config, facts, activation_bytes=activation_bytes)
    config = resolve_effort(config, usual, facts, asked=asked)
    return spec.model_copy(update={"distillation": config})


def resolve_teacher(spec: TeacherSpec, inspection: Inspection) -> TeacherSpec:
    """Return what is said of the teacher, completed with facts of its file.

    Raises:
        TeacherMismatch: the file contradicts the spec, or a fact is missing.
    """
    if spec.format not in (None, inspection.format):
        raise TeacherMismatch(
            f"the file is {inspection.format}, the spec says {spec.format}", pointer="/teacher/format"
        )
    if inspection.format == "safetensors" and spec.architecture is None:
        raise TeacherMismatch(
            "a safetensors teacher needs the name of its architecture",
            hint="Give teacher.architecture; GET /menu lists the students, which are its possible names.",
            pointer="/teacher/architecture",
        )
    shape = inspection.input_shape
    if shape is None:
        raise TeacherMismatch(
            "the shape of the teacher's images is not known",
            hint="Give teacher.input.shape [channels, height, width].",
            pointer="/teacher/input",
        )
    told = _with_estimate(spec.input or InputSpec(), inspection, channels=shape[0])
    if told.shape not in (None, shape):
        raise TeacherMismatch(
            f"the file takes images of {shape}, the spec says {told.shape}", pointer="/teacher/input/shape"
        )
    _check_pixels(told, shape[0], inspection)
    if spec.num_classes not in (None, inspection.num_classes):
        raise TeacherMismatch(
            f"the file tells {inspection.num_classes} classes apart, the spec says {spec.num_classes}",
            pointer="/teacher/num_classes",
        )
    return spec.model_copy(
        update={
            "format": inspection.format,
            "input": told.for_channels(shape[0]).model_copy(update=_input_facts(told, shape, inspection)),
            "output": inspection.output_name,
            "num_classes": inspection.num_classes,
        }
    )


def _with_estimate(told: InputSpec, inspection: Inspection, *, channels: int) -> InputSpec:
    """Return what was told of the images, with what the file shows of their pixel values where nobody told it.

    A spec that was resolved before keeps its values, and keeps them as assumed if they are still those of the estimate.
    """
    found = inspection.input_space or without_evidence(channels)
    if not _takes_whole_pixels(inspection) and not told.is_range_known:
        values = {"mean": found.mean, "std": found.std, "range": found.range, "assumed": found.certainty}
        return told.model_copy(update=values)
    if told.assumed is not None and inspection.input_space is not None and not agrees(told, found):
        return told.model_copy(update={"assumed": None})
    return told


def _takes_whole_pixels(inspection: Inspection) -> bool:
    return inspection.interface is not None and inspection.interface.input_type == "uint8"


def _input_facts(told: InputSpec, shape: list[int], inspection: Inspection) -> dict[str, Any]:
    """Return what the file tells of its images, as fields of `InputSpec`."""
    interface = inspection.interface
    whole = _takes_whole_pixels(inspection)
    known = [0.0, 255.0] if whole else [0.0, 1.0] if told.mean is not None else None
    return {"shape": shape, "layout": "NCHW" if interface is None else interface.layout, "range": told.range or known}


def _check_pixels(told: InputSpec, channels: int, inspection: Inspection) -> None:
    """Check what the caller says about pixel values against the number of channels and the element type of the images.

    Raises:
        TeacherMismatch: they do not fit together.
    """
    for name in ("mean", "std"):
        values = getattr(told, name)
        if values is not None and len(values) not in (1, channels):
            raise TeacherMismatch(
                f"{name} has {len(values)} values for {channels} channels", pointer=f"/teacher/input/{name}"
            )
    if inspection.interface is None or inspection.interface.input_type != "uint8":
        return
    if told.mean is not None and (any(told.mean) or {*(told.std or [])} != {1.0}):
        raise TeacherMismatch(
            "the file takes uint8 pixels and normalises them itself, so mean and std have no place before it",
            hint="Leave teacher.input.mean and teacher.input.std out; teacher.input.range is [0, 255] unless you say "
            "otherwise.",
            pointer="/teacher/input/mean",
        )
    if told.range is not None and not (told.range[0] >= 0 and told.range[1] <= 255):
        raise TeacherMismatch("uint8 pixels lie between 0 and 255", pointer="/teacher/input/range")


def _check_pruned_size(student: StudentSpec, inspection: Inspection) -> None:
    if student.options:
        raise StudentError("a narrowed teacher has no options", pointer="/student/options")
    limit = student.parameter_limit(inspection.parameters)
    if limit is not None and limit < 1:
        raise StudentError("so small a share leaves no parameter", pointer="/student/params")
    if (limit is None and student.width >= 1) or (limit is not None and limit >= inspection.parameters):
        raise StudentNotSmaller(
            "a narrowed teacher must be smaller than the teacher",
            hint='Give student.width below 1, or student.params such as "25%".',
            pointer="/student/width" if limit is None else "/student/params",
        )


def check_smaller(name: str, parameters: int, of_teacher: int) -> None:
    """Check that the student has fewer parameters than its teacher.

    Raises:
        StudentNotSmaller: it has not.
    """
    if parameters >= of_teacher:
        raise StudentNotSmaller(
            f"{name} has {parameters} parameters for these images, the teacher {of_teacher}",
            hint="Choose a smaller architecture, or a width below 1; GET /menu lists the students with their sizes.",
            pointer="/student/architecture",
        )


def _check_needs(spec: DistillSpec, inspection: Inspection) -> None:
    config = spec.distillation
    for role, options in (("method", config.method_options), ("memory", config.memory_options)):
        needs = lacking(options.needed(), inspection.offers)
        if needs == [HALF_SIZE]:
            raise RequirementError(
                "coarse steps need a teacher of images of more than 48 × 48 pixels that also takes images of half the "
                "height and width, as far as its file tells; this one does not",
                hint="Leave coarse_steps at 0.",
                pointer="/distillation/method_options/coarse_steps",
            )
        if needs:
            name = config.method if role == "method" else config.memory
            hints = [warning.hint for warning in inspection.warnings if "batchnorm" in needs]
            raise RequirementError(
                f"{name} needs {', '.join(needs)}, which this teacher does not offer",
                hint=hints[0] if hints else f"Choose another {role}; {_LISTED[role]}.",
                pointer=f"/distillation/{role}",
            )
    if config.memory_options.needs_of_method - config.method_options.gives:
        raise RequirementError(
            f"memory {config.memory} needs a generator that persists, which {config.method} does not have",
            hint="Choose another memory, such as reservoir, or a method with a generator, such as pre_dfkd.",
            pointer="/distillation/memory",
        )


def input_warnings(spec: TeacherSpec, inspection: Inspection) -> list[Notice]:
    """Return the warnings about the pixel values of a resolved spec: assumed ones, and told ones that are in doubt."""
    if _takes_whole_pixels(inspection) or spec.input is None:
        return []
    return input_notices(spec.input, inspection.input_space)
