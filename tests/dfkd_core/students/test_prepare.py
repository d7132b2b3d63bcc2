"""How a student starts: from its teacher's weights if it is a thinner version of its teacher, otherwise at random."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from benchmarks.pair import fold as fold_batchnorms
from dfkd_core.architectures import describe
from dfkd_core.errors import StudentError, StudentNotSmaller
from dfkd_core.networks.batchnorm import NormalisedConv2d
from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.rng import Streams
from dfkd_core.spec.config import StudentSpec
from dfkd_core.students.build import Network, build_network
from dfkd_core.students.narrowing import original_of
from dfkd_core.students.prepare import Student, prepare_student, reinitialise
from dfkd_core.students.temporary_batchnorm import MIN_DEPTH, fold
from dfkd_core.students.weight_inheritance import inherit

SHAPE = (1, 32, 32)


def network_of(architecture: str, *, width: float = 1.0, seed: int = 0) -> Network:
    description = describe(architecture, input_shape=SHAPE, num_classes=10, width=width)
    return build_network(description, generator=torch.Generator().manual_seed(seed))


def teacher_of(architecture: str, *, width: float = 1.0) -> Teacher:
    network = network_of(architecture, width=width)
    draws = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=draws)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=draws)
    space = InputSpace(shape=SHAPE, low=(-1.0,), high=(2.0,), range_known=True)
    return Teacher(network, space, num_classes=10, classifier=network.classifier)


def prepare(teacher: Teacher, *, normalised: bool = False, **spec: Any) -> Student:
    asked = StudentSpec.model_validate(spec)
    description = None
    if asked.architecture != "teacher":
        description = describe(asked.architecture, input_shape=SHAPE, num_classes=10, width=asked.width)
    parameters = sum(parameter.numel() for parameter in teacher.parameters())
    return prepare_student(
        asked,
        description,
        teacher,
        original_of(teacher.network),
        teacher_parameters=parameters,
        normalised=normalised,
        streams=Streams(0),
    )


@pytest.mark.parametrize(
    ("of_teacher", "student"),
    [
        ("lenet5", {"architecture": "lenet5_half"}),
        ("resnet14", {"architecture": "resnet14", "width": 0.5}),
        ("wrn_16_1", {"architecture": "wrn_16_1", "width": 0.5}),
        ("mobilenetv2", {"architecture": "mobilenetv2", "width": 0.5}),
    ],
)
def test_a_thinner_version_starts_from_its_teacher(of_teacher: str, student: dict[str, Any]) -> None:
    teacher = teacher_of(of_teacher)
    found = prepare(teacher, **student)
    assert found.init == "teacher"
    assert found.network.training
    own, theirs = (
        next(module.weight for module in network.modules() if isinstance(module, nn.Conv2d))
        for network in (found.network, teacher.network)
    )
    assert len(own) < len(theirs)
    assert all(any(torch.equal(channel, other) for other in theirs) for channel in own)


def test_a_network_of_the_same_width_becomes_its_teacher() -> None:
    teacher, twin = teacher_of("resnet8"), network_of("resnet8", seed=5)
    assert inherit(twin, original_of(teacher.network), torch.zeros(2, *SHAPE))
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(twin.eval()(images), teacher(images), atol=1e-5)


@pytest.mark.parametrize("student", [{"architecture": "resnet8"}, {"architecture": "lenet5"}, {"architecture": "vgg8"}])
def test_another_kind_of_network_starts_at_random(student: dict[str, Any]) -> None:
    teacher = teacher_of("resnet14")
    found = prepare(teacher, **student)
    assert found.init == "random"
    drawn = build_network(
        describe(student["architecture"], input_shape=SHAPE, num_classes=10), generator=Streams(0)["student-weights"]
    )
    assert all(torch.equal(found.network.state_dict()[name], tensor) for name, tensor in drawn.state_dict().items())


def test_random_is_random_even_where_the_teacher_would_fit() -> None:
    assert prepare(teacher_of("lenet5"), architecture="lenet5_half", init="random").init == "random"


def test_asking_for_weights_that_do_not_fit_is_refused() -> None:
    with pytest.raises(StudentError, match="not a thinner version") as refusal:
        prepare(teacher_of("resnet14"), architecture="resnet8", init="teacher")
    assert refusal.value.pointer == "/student/init"


def test_folded_statistics_are_replaced_by_ones_that_change_nothing() -> None:
    """A teacher whose BatchNorms were folded away, and a student of the same width that has them."""
    teacher = teacher_of("resnet8")
    folded = fold_batchnorms(teacher)
    student = network_of("resnet8", seed=7)
    images = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert inherit(student, original_of(folded.network), images)
    assert torch.allclose(student.eval()(images), folded(images), atol=1e-3)


def test_a_deep_student_without_normalisation_is_trained_with_batchnorms() -> None:
    teacher = fold_batchnorms(teacher_of("resnet8"))
    plain, found = prepare(teacher, architecture="teacher"), prepare(teacher, normalised=True, architecture="teacher")
    convolutions = sum(isinstance(module, nn.Conv2d) for module in plain.network.modules())
    assert convolutions >= MIN_DEPTH
    assert sum(isinstance(module, NormalisedConv2d) for module in found.network.modules()) == convolutions
    assert (found.parameters, found.init) == (plain.parameters, "teacher")
    assert fold(found.network).state_dict().keys() == plain.network.state_dict().keys()


@pytest.mark.parametrize(
    ("teacher", "student"),
    [("lenet5", "lenet5_half"), ("lenet5", "teacher"), ("resnet8", "teacher")],
)
def test_one_that_is_shallow_or_normalises_stays_as_it_is(teacher: str, student: str) -> None:
    found = prepare(teacher_of(teacher), normalised=True, architecture=student)
    assert not any(isinstance(module, NormalisedConv2d) for module in found.network.modules())


def test_half_a_teacher_is_the_default() -> None:
    found = prepare(teacher_of("lenet5"), architecture="teacher")
    assert (found.name, found.width, found.parameters, found.init) == ("teacher", 0.5, 15738, "teacher")
    assert found.description is None


def test_a_share_of_the_parameters_sets_the_width() -> None:
    found = prepare(teacher_of("lenet5"), architecture="teacher", params="10%")
    assert found.parameters <= 6170
    assert found.width < 0.4


def test_a_narrowed_teacher_may_forget_its_weights() -> None:
    teacher = teacher_of("resnet8")
    found = prepare(teacher, architecture="teacher", init="random")
    kept = prepare(teacher, architecture="teacher")
    assert found.init == "random"
    for name, tensor in found.network.state_dict().items():
        if name.endswith("weight") and tensor.dim() > 1:
            assert not torch.equal(tensor, kept.network.state_dict()[name])
    norms = [module for module in found.network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(bool((norm.running_var == 1).all()) and norm.running_mean is not None for norm in norms)


def test_forgetting_draws_from_the_generator_only() -> None:
    one, other = network_of("resnet8", seed=1), network_of("resnet8", seed=2)
    for network in (one, other):
        reinitialise(network, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(one.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def test_a_teacher_without_a_linear_end_is_narrowed_too() -> None:
    teacher = teacher_of("lenet5")
    teacher.classifier = None
    found = prepare(teacher, architecture="teacher")
    assert (found.parameters, found.init) == (15738, "teacher")


def test_what_cannot_be_made_smaller_is_refused() -> None:
    teacher = teacher_of("lenet5", width=0.05)  # one channel everywhere but in the last hidden layers
    with pytest.raises(StudentNotSmaller):
        prepare(teacher, architecture="teacher", width=0.99)


@pytest.mark.parametrize(
    "spec",
    [
        {"architecture": "lenet5", "params": 100},
        {"architecture": "teacher", "params": "25%", "width": 0.5},
        {"architecture": "teacher", "params": "250%"},
        {"architecture": "teacher", "params": 0},
        {"architecture": "teacher", "params": "some"},
    ],
)
def test_sizes_that_make_no_sense_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StudentSpec.model_validate(spec)


def test_a_spec_that_was_echoed_means_the_same() -> None:
    spec = StudentSpec.model_validate({"architecture": "teacher", "params": "25%"})
    assert StudentSpec.model_validate(spec.model_dump()) == spec
    assert spec.parameter_limit(1000) == 250
