"""TorchScript networks, and networks with parts of it, are exported as others are."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.errors import TeacherInvalid
from dfkd_core.exporting.teacher import export_module

SHAPE = (3, 12, 12)
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.linear = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(torch.relu(self.norm(self.convolution(images))).mean((2, 3)))


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return 2 * self.inner(images)


class Pair(Net):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.norm(self.convolution(images))).mean((2, 3))
        return features, self.linear(features)


def settled(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    network.train()(torch.randn(16, *SHAPE))
    return network.eval()


def stored(network: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    file = io.BytesIO()
    torch.jit.save(network, file)
    file.seek(0)
    return torch.jit.load(file)


def traced(network: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.trace(network, torch.randn(2, *SHAPE))


@pytest.mark.parametrize("compiled", [traced, torch.jit.script])
@pytest.mark.parametrize("around", [lambda network: network, Doubled])
def test_a_stored_archive_keeps_its_statistics_and_computes_the_same(
    compiled: Callable[[nn.Module], torch.jit.ScriptModule], around: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    network = around(stored(compiled(settled(Net()))))
    found = export_module(network, tmp_path / "teacher.onnx", input_shape=SHAPE)
    assert found.inspection.batchnorm.present == 1
    assert found.max_abs_diff is not None
    assert found.max_abs_diff < 1e-5


def test_one_of_several_outputs_of_an_archive_is_taken(tmp_path: Path) -> None:
    found = export_module(traced(settled(Pair())), tmp_path / "teacher.onnx", input_shape=SHAPE, logits=1)
    assert found.inspection.num_classes == 5


def test_an_archive_that_does_not_take_the_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(TeacherInvalid, match="fails on images of shape \\[2, 12, 12, 3\\]") as refusal:
        export_module(traced(settled(Net())), tmp_path / "teacher.onnx", input_shape=(12, 12, 3))
    assert "here 3,12,12" in str(refusal.value.hint)
    assert not (tmp_path / "teacher.onnx").exists()
