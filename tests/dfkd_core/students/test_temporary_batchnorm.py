"""Temporary BatchNorms: they start with the moments of the teacher's channels and are gone after training."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.networks.batchnorm import NormalisedConv2d, renormalise
from dfkd_core.onnx_import.reader import read_plan
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.students.narrowing import narrow_to_width
from dfkd_core.students.temporary_batchnorm import fold, is_normalised, repair
from dfkd_core.teachers.onnx import load_onnx
from dfkd_core.teachers.original import original_of
from tests.dfkd_core import zoo
from tests.dfkd_core.exports import exported

if TYPE_CHECKING:
    from collections.abc import Iterator


def plain_network() -> nn.Module:
    """A residual network whose BatchNorms an exporter has folded away."""
    network = zoo.build("resnet8").eval()
    for (name, convolution), (norm_name, norm) in pairwise(list(network.named_modules())):
        if isinstance(norm, nn.BatchNorm2d):
            assert isinstance(convolution, nn.Conv2d)
            network.set_submodule(name, nn.utils.fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(norm_name, nn.Identity())
    return network


def images(seed: int = 0) -> Tensor:
    return torch.randn(64, *zoo.SHAPE, generator=torch.Generator().manual_seed(seed))


def outputs(network: nn.Module) -> "Iterator[tuple[Tensor, Tensor]]":
    """Mean and variance of what each normalised convolution puts out."""
    found: list[tuple[Tensor, Tensor]] = []
    for module in network.modules():
        if isinstance(module, NormalisedConv2d):
            module.register_forward_hook(
                lambda _module, _inputs, maps: found.append(torch.var_mean(maps, dim=(0, 2, 3), correction=0))
            )
    with torch.no_grad():
        network.eval()(images())
    return iter(found)


def test_a_whole_copy_of_the_teacher_still_does_what_it_did() -> None:
    teacher = plain_network()
    student = copy.deepcopy(teacher)
    assert not is_normalised(student)
    renormalise(student)
    assert is_normalised(student)
    repair(student, teacher, images())
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(images(1)), teacher(images(1)), rtol=1e-3, atol=1e-3)


def test_each_channel_of_a_narrowed_copy_gets_the_moments_of_its_original(tmp_path: Path) -> None:
    _, path = exported("resnet8", "legacy", tmp_path)  # this exporter folds BatchNorms
    parsed = read_plan(path)
    teacher = load_onnx(path, TeacherSpec(), parsed)
    student = narrow_to_width(original_of(teacher, parsed), 0.5)
    teacher = teacher.network
    convolutions = {name: module for name, module in student.named_modules() if isinstance(module, nn.Conv2d)}
    wanted = []
    for name, convolution in convolutions.items():
        original = teacher.get_submodule(name)
        assert isinstance(original, nn.Conv2d)
        kept = [original.bias.tolist().index(value) for value in convolution.bias.tolist()]
        seen: list[Tensor] = []
        handle = original.register_forward_hook(lambda _module, _inputs, maps, seen=seen: seen.append(maps))
        with torch.no_grad():
            teacher(images())
        handle.remove()
        wanted.append([moment[kept] for moment in torch.var_mean(seen[0], dim=(0, 2, 3), correction=0)])
    renormalise(student)
    repair(student, teacher, images())
    for found, expected in zip(outputs(student), wanted, strict=True):
        torch.testing.assert_close(found, tuple(expected), rtol=1e-2, atol=1e-3)


def test_channels_that_cannot_be_told_apart_pass_their_own_moments_on() -> None:
    teacher = plain_network()
    for module in teacher.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    student = copy.deepcopy(teacher)
    renormalise(student)
    repair(student, teacher, images())
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(images()), teacher(images()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [0, 3])
def test_folding_changes_nothing_but_the_layers(steps: int) -> None:
    student = plain_network()
    names = list(student.state_dict())
    renormalise(student)
    student.train()
    for seed in range(steps):
        student(images(seed))
    with torch.no_grad():
        before = student.eval()(images())
        assert list(fold(student).state_dict()) == names
        torch.testing.assert_close(student(images()), before, rtol=1e-4, atol=1e-4)
    assert not is_normalised(student)
