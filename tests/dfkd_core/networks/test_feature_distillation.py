"""Feature distillation: what a student learns from the inner layers of its teacher."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.errors import RequirementError
from dfkd_core.networks.feature_distillation import Transfer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.config import Training
from tests.dfkd_core.tiny import SHAPE, tiny_network, tiny_teacher


def images(count: int = 64) -> Tensor:
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(0))


def transfer(teacher: Teacher, student: nn.Module, **weights: float) -> Transfer:
    silent: dict[str, Any] = {"feature_weight": 0.0, "attention_weight": 0.0}
    return Transfer(student, teacher, Training.model_validate({**silent, **weights}))


def student_of(width: int = 6) -> nn.Module:
    network = tiny_network(width)
    network.__dict__["classifier"] = network[-1]
    return network


def test_logits_are_those_of_the_two_networks() -> None:
    teacher, student = tiny_teacher(), student_of()
    own, theirs, _ = transfer(teacher, student, feature_weight=1.0, attention_weight=1.0).compare(
        images(), featured=64, rate=1.0
    )
    assert torch.equal(own, student(images()))
    assert torch.equal(theirs, teacher.label(images()))


def test_a_copy_of_the_teacher_has_nothing_to_learn() -> None:
    teacher = tiny_teacher()
    twin = copy.deepcopy(teacher.network)
    twin.__dict__["classifier"] = twin[-1]  # type: ignore[index]
    loss = transfer(teacher, twin, feature_weight=1.0, attention_weight=1.0).compare(
        images(512), featured=512, rate=1.0
    )[2]
    assert loss.item() < 0.05


def test_learning_lowers_the_loss() -> None:
    teacher, student = tiny_teacher(), student_of()
    pair = transfer(teacher, student, feature_weight=1.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    first = pair.compare(images(), featured=64, rate=1.0)[2]
    loss = first
    for _ in range(60):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pair.step()
        loss = pair.compare(images(), featured=64, rate=1.0)[2]
    assert float(loss.detach()) < 0.95 * float(first.detach())


def test_a_restored_transfer_goes_on_in_the_same_way() -> None:
    teacher, student = tiny_teacher(), student_of()
    first = transfer(teacher, student, feature_weight=1.0)
    assert first.state() == {}
    first.compare(images(), featured=64, rate=1.0)
    first.step()
    second = transfer(teacher, student, feature_weight=1.0)
    second.restore(copy.deepcopy(first.state()))
    losses = [each.compare(images()[32:], featured=32, rate=1.0)[2] for each in (first, second)]
    assert torch.equal(*losses)
    fresh = transfer(teacher, student, feature_weight=1.0).compare(images()[32:], featured=32, rate=1.0)[2]
    assert not torch.equal(losses[0], fresh)


@pytest.mark.parametrize("end", ["teacher", "student"])
def test_without_a_linear_end_there_are_no_features(end: str) -> None:
    teacher = tiny_teacher(features=end != "teacher")
    student = student_of() if end == "teacher" else tiny_network()
    assert not transfer(teacher, student, feature_weight=1.0).active


def test_features_are_compared_on_the_first_images_only() -> None:
    teacher, student = tiny_teacher(), student_of()
    pair = transfer(teacher, student, feature_weight=1.0)
    pair.compare(images(), featured=16, rate=1.0)
    changed = torch.cat([images()[:16], 1 - images()[16:]])
    losses = [pair.compare(each, featured=16, rate=1.0)[2].item() for each in (images(), changed)]
    assert losses[0] == pytest.approx(losses[1])
    assert pair.compare(images(), featured=0, rate=1.0)[2].item() == 0


def test_features_weigh_less_as_the_rate_falls() -> None:
    pair = transfer(tiny_teacher(), student_of(), feature_weight=1.0)
    whole, half = (pair.compare(images(), featured=64, rate=rate)[2].item() for rate in (1.0, 0.5))
    assert half == pytest.approx(whole / 2)


def test_layers_that_differ_in_more_than_channels_are_not_compared() -> None:
    other = nn.Sequential(nn.Conv2d(SHAPE[0], 2, 3, stride=3), nn.Flatten(), nn.Linear(8, 4))
    other.__dict__["classifier"] = other[-1]
    assert not transfer(tiny_teacher(), other, feature_weight=1.0).active


def test_nothing_is_transferred_at_weight_zero() -> None:
    assert not transfer(tiny_teacher(), student_of()).active


def test_no_gradient_reaches_the_teacher_and_no_hook_stays() -> None:
    teacher, student = tiny_teacher(), student_of()
    transfer(teacher, student, feature_weight=1.0, attention_weight=1.0).compare(images(), featured=64, rate=1.0)[
        2
    ].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in [*teacher.modules(), *student])


def test_attention_needs_maps_of_the_same_size() -> None:
    other = nn.Sequential(nn.Conv2d(SHAPE[0], 2, 3, stride=3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 4))
    with pytest.raises(RequirementError, match="same size"):
        transfer(tiny_teacher(), other, attention_weight=1.0).compare(images(), featured=64, rate=1.0)
