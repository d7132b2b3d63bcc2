"""The student before its first step: built from the catalogue or cut out of its teacher, and how it starts."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dfkd_core.architectures.layers import Initialiser, NetworkDescription
from dfkd_core.errors import StudentError
from dfkd_core.images.procedural import procedural_images
from dfkd_core.inspection import resolve
from dfkd_core.networks.batchnorm import renormalise
from dfkd_core.networks.teacher import Teacher
from dfkd_core.planning.work import SETTLING_IMAGES
from dfkd_core.rng import Streams
from dfkd_core.spec.config import PRUNED_TEACHER, StudentSpec
from dfkd_core.students.build import build_network, draw_weights
from dfkd_core.students.narrowing import Original, count_parameters, narrow_to_parameters, narrow_to_width
from dfkd_core.students.temporary_batchnorm import is_deep, is_normalised, repair
from dfkd_core.students.weight_inheritance import inherit


@dataclass(frozen=True, slots=True)
class Student:
    """A network to be trained, with the facts about it that the report states."""

    network: nn.Module
    init: Literal["teacher", "random"]
    width: float
    parameters: int
    description: NetworkDescription | None = None  # None: a narrowed teacher

    @property
    def name(self) -> str:
        """The name of the student's architecture."""
        return PRUNED_TEACHER if self.description is None else self.description.name

    @property
    def options(self) -> dict[str, Any]:
        """The options of the architecture's family, with defaults filled in."""
        return {} if self.description is None else dict(self.description.options)


def prepare_student(
    spec: StudentSpec,
    description: NetworkDescription | None,
    teacher: Teacher,
    original: Original,
    *,
    teacher_parameters: int,
    normalised: bool,
    streams: Streams,
) -> Student:
    """Return the student that `spec` asks for, in training mode, on the CPU, where the teacher must be too.

    `description` is None for a pruned teacher. `original` is the teacher as a network to narrow. `normalised`: a deep
    student without any normalisation layer gets a BatchNorm behind each convolution, which `temporary_batchnorm.fold`
    removes again. The count of parameters excludes these BatchNorms.

    Raises:
        StudentError: the student cannot be built for this input.
        StudentNotSmaller: the student has at least as many parameters as its teacher.
    """
    if description is None:
        found = _pruned(spec, teacher, original, teacher_parameters=teacher_parameters, streams=streams)
    else:
        found = _named(spec, description, teacher, original, streams=streams)
    if normalised and is_deep(found.network) and not is_normalised(found.network):
        renormalise(found.network)
        if found.init == "teacher":
            repair(found.network, teacher.network, _images(teacher, streams))
    return found


def _named(
    spec: StudentSpec, description: NetworkDescription, teacher: Teacher, original: Original, *, streams: Streams
) -> Student:
    network = build_network(description, generator=streams["student-weights"])
    inherited = False
    if spec.init != "random":
        inherited = inherit(network, original, _images(teacher, streams))
    if spec.init == "teacher" and not inherited:
        raise StudentError(
            f"{description.name} is not a thinner version of this teacher, so it cannot start from its weights",
            hint='Use student.init "auto" or "random", or student.architecture "teacher".',
            pointer="/student/init",
        )
    return Student(
        network.train(),
        "teacher" if inherited else "random",
        description.width,
        description.parameters,
        description,
    )


def _pruned(
    spec: StudentSpec, teacher: Teacher, original: Original, *, teacher_parameters: int, streams: Streams
) -> Student:
    limit, width = spec.parameter_limit(teacher_parameters), spec.width
    if limit is None:
        network = narrow_to_width(original, width)
    else:
        network, width = narrow_to_parameters(original, limit)
    parameters = count_parameters(network)
    resolve.check_smaller(PRUNED_TEACHER, parameters, teacher_parameters)
    if spec.init == "random":
        reinitialise(network, generator=streams["student-weights"])
    if teacher.classifier is not None:
        names = {module: name for name, module in teacher.network.named_modules()}
        network.__dict__["classifier"] = network.get_submodule(names[teacher.classifier])
    init: Literal["teacher", "random"] = "random" if spec.init == "random" else "teacher"
    return Student(network.train(), init, width, parameters)


def _images(teacher: Teacher, streams: Streams) -> Tensor:
    space, count = teacher.input_space, teacher.engine.compute.at_a_time(SETTLING_IMAGES)
    return torch.lerp(*space.bounds(), procedural_images(space.shape, count, generator=streams["settling"]))


def reinitialise(network: nn.Module, *, generator: torch.Generator) -> None:
    """Draw all weights anew, uniform in +-1/sqrt(fan_in) for convolutions and linears; norms as they start."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            draw_weights(module, Initialiser.UNIFORM, generator=generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()  # ones and zeros: nothing is drawn
