"""Which networks take images of half the height and width, as far as NumPy can tell."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dfkd_core.exporting.onnx_writers import WRITERS, write_onnx
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.spec.teacher import TeacherSpec


def network(pool: nn.Module, inputs: int, *more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(*convolutions, pool, nn.Flatten(), nn.Linear(inputs, 5), *more).eval()


def offers(folder: Path, net: nn.Module, side: int) -> list[str]:
    path = folder / "teacher.onnx"
    write_onnx(WRITERS[0], net, torch.zeros(2, 3, side, side), path, opset=17, fixed=False)
    return inspect_with_input_space(path, TeacherSpec())[0].offers


def test_a_net_that_averages_over_all_places_takes_half_the_size(tmp_path: Path) -> None:
    assert "half-size" in offers(tmp_path, network(nn.AdaptiveAvgPool2d(1), 8), 64)


@pytest.mark.parametrize(("pool", "inputs"), [(nn.AvgPool2d(8), 8 * 4**2), (nn.Identity(), 8 * 32**2)])
def test_a_net_whose_classifier_wants_all_places_does_not(pool: nn.Module, inputs: int, tmp_path: Path) -> None:
    assert "half-size" not in offers(tmp_path, network(pool, inputs), 64)


def test_small_images_are_not_tried(tmp_path: Path) -> None:
    assert "half-size" not in offers(tmp_path, network(nn.AdaptiveAvgPool2d(1), 8), 32)
