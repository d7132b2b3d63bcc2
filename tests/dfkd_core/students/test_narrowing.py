"""Narrowing: thinner copies of real architectures run, keep the best channels and have the size that was said."""

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_core.architectures import describe
from dfkd_core.errors import StudentError
from dfkd_core.narrowing.choice import choose, magnitude
from dfkd_core.narrowing.cut import cut
from dfkd_core.narrowing.figures import figures_at, staying_at
from dfkd_core.onnx_import.reader import read_plan
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.students.build import build_network
from dfkd_core.students.narrowing import (
    Original,
    count_parameters,
    narrow_to_layers,
    narrow_to_parameters,
    narrow_to_width,
    original_of,
)
from dfkd_core.teachers import original
from dfkd_core.teachers.fx_builder import network_from_plan
from dfkd_core.teachers.onnx import load_onnx
from tests.dfkd_core import zoo
from tests.dfkd_core.exports import exported

pytestmark = pytest.mark.usefixtures("exporter_table")

WIDTHS = (1.0, 0.5, 0.25, 0.0)
WAY = "legacy preserve"
REFUSED = {"alexnet", "top_class", "recurrent", "rmsnorm", "adaptive_pool", "reparametrized"}  # by importer or exporter
READ = [name for name in zoo.ZOO if name not in REFUSED]
LEAST_REMOVED = {"hourglass": 0.05, "shufflenet": 0.5, "shufflenet_v1": 0.35, "swin": 0.45, "spatial_transformer": 0.45}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def of_zoo(name: str, shelf: Path, way: str = WAY) -> Original:
    _, path = exported(name, way, shelf)
    parsed = read_plan(path)
    return original.original_of(load_onnx(path, TeacherSpec(), parsed), parsed)


def of_catalogue(name: str) -> Original:
    shape = (1, 32, 32)
    description = describe(name, input_shape=shape, num_classes=10)
    return original_of(build_network(description, generator=torch.Generator().manual_seed(0)).eval())


def images(count: int = 3) -> Tensor:
    return torch.randn(count, *zoo.SHAPE, generator=torch.Generator().manual_seed(0))


def outputs_of(network: nn.Module) -> Counter[int]:
    layers = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    found = [module for module in network.modules() if isinstance(module, layers)]
    return Counter(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels for layer in found)


@pytest.mark.parametrize("way", [WAY, "legacy 17"])
@pytest.mark.parametrize("name", READ)
def test_a_narrowed_net_of_the_zoo_has_the_size_that_was_said(name: str, way: str, shelf: Path) -> None:
    if (name, way) == ("spatial_transformer", "legacy 17"):
        pytest.skip("the exporter refuses it")
    teacher = of_zoo(name, shelf, way)
    for width in WIDTHS:
        said = figures_at(teacher.narrowing, width)
        plan = cut(teacher.channels, choose(teacher.channels, staying_at(teacher.narrowing, width)))
        network = network_from_plan(plan)
        assert count_parameters(network) == said.parameters
        assert (plan.macs, 4 * plan.activations) == (said.macs, said.activation_bytes)
        assert outputs_of(network) == Counter(count for _, count in said.layers)
        for count in (1, 3):
            assert network(images(count)).shape == (count, zoo.NUM_CLASSES)
    removed = 1 - figures_at(teacher.narrowing, 0.5).parameters / figures_at(teacher.narrowing, 1.0).parameters
    assert removed > LEAST_REMOVED.get(name, 0.4)


@pytest.mark.parametrize("name", READ)
def test_a_copy_of_width_one_is_its_teacher(name: str, shelf: Path) -> None:
    teacher = of_zoo(name, shelf)
    assert torch.allclose(narrow_to_width(teacher, 1.0)(images()), teacher.network(images()), atol=1e-5)


def test_the_original_stays_as_it_was(shelf: Path) -> None:
    teacher = of_zoo("resnet8", shelf)
    before = copy.deepcopy(teacher.network.state_dict())
    narrow_to_width(teacher, 0.25)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.network.state_dict().items())
    assert not teacher.network.training


def test_half_a_lenet_has_the_published_size() -> None:
    network = narrow_to_width(of_catalogue("lenet5"), 0.5)
    assert count_parameters(network) == 15738
    assert outputs_of(network) == Counter([3, 8, 60, 42, 10])


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "wrn_16_1", "vgg8", "mobilenetv2"])
def test_a_narrowed_network_of_the_catalogue_has_the_size_that_was_said(name: str) -> None:
    teacher = of_catalogue(name)
    for width in (1.0, 0.5, 0.3):
        network = narrow_to_width(teacher, width)
        assert count_parameters(network) == figures_at(teacher.narrowing, width).parameters
        assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    whole, described = figures_at(teacher.narrowing, 1.0), teacher.network.description
    assert (whole.parameters, whole.macs) == (described.parameters, described.macs)
    assert whole.activation_bytes == 4 * described.activations


def test_the_weakest_channels_go_and_the_others_keep_their_weights() -> None:
    teacher = of_catalogue("lenet5")
    first, second = teacher.network.get_submodule("conv1"), teacher.network.get_submodule("conv2")
    with torch.no_grad():
        for channel, size in enumerate((3.0, 0.1, 2.0, 0.2, 1.0, 0.3)):
            first.weight[channel] = size
            second.weight[:, channel] *= size
    thinner = narrow_to_width(original_of(teacher.network), 0.5)
    assert torch.equal(thinner.get_submodule("conv1").weight, first.weight[[0, 2, 4]])
    kept = [find(second.weight[:, [0, 2, 4]], channel) for channel in thinner.get_submodule("conv2").weight]
    assert kept == sorted(set(kept))


def find(rows: Tensor, wanted: Tensor) -> int:
    return next(at for at, row in enumerate(rows) if torch.equal(row, wanted))


def test_channels_that_do_nothing_can_go_without_a_trace() -> None:
    network = of_catalogue("lenet5").network
    halves = {"conv1": 3, "conv2": 8, "conv3": 60, "fc1": 42}
    with torch.no_grad():
        for name, count in halves.items():
            network.get_submodule(name).weight[count:] = 0
            network.get_submodule(name).bias[count:] = 0
    images = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    thinner = narrow_to_width(original_of(network), 0.5)
    assert torch.allclose(thinner(images), network(images), atol=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_number_of_parameters_is_met_from_below(share: float, shelf: Path) -> None:
    teacher = of_zoo("resnet8", shelf)
    limit = int(share * count_parameters(teacher.network))
    network, width = narrow_to_parameters(teacher, limit)
    assert 0.85 * limit < count_parameters(network) <= limit
    assert 0 < width < 1


def test_a_number_that_cannot_be_met_is_refused_with_the_least(shelf: Path) -> None:
    with pytest.raises(StudentError, match="is the least") as refusal:
        narrow_to_parameters(of_zoo("lenet", shelf), 3)
    assert refusal.value.pointer == "/student/params"


def test_equal_networks_are_narrowed_alike(shelf: Path) -> None:
    one, other = (narrow_to_width(of_zoo("resnet8", shelf), 0.5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_layers_of_one_group_cannot_have_different_numbers_of_channels() -> None:
    teacher = of_catalogue("resnet8")
    joined = [name for name, module in teacher.network.named_modules() if isinstance(module, nn.Conv2d)][:3:2]
    assert narrow_to_layers(teacher, dict.fromkeys(joined, 5)) is not None
    assert narrow_to_layers(teacher, dict(zip(joined, (5, 6), strict=True))) is None


def test_each_group_of_a_grouped_convolution_keeps_its_own_best_channels(shelf: Path) -> None:
    teacher = of_zoo("resnext", shelf)
    groups = [group for group in teacher.channels.groups if len(group.cells) == 4]
    assert groups
    first = next(number for number, group in enumerate(teacher.channels.groups) if group.cells.shape == (4, 2))
    full = [group.cells.shape[1] for group in teacher.channels.groups]
    staying = [1 if number == first else size for number, size in enumerate(full)]
    present = np.ones(len(teacher.channels.group_of), np.bool_)
    scores, left = magnitude(teacher.channels, first, present), choose(teacher.channels, staying)
    for cell in teacher.channels.groups[first].cells:
        assert left[cell].tolist() == (scores[cell] == scores[cell].max()).tolist()


def test_attention_loses_whole_heads(shelf: Path) -> None:
    for name in ("vit", "einsum_vit", "multihead_vit", "cct", "swin"):
        teacher = of_zoo(name, shelf)
        assert any(group.cells.shape == (1, 2) for group in teacher.channels.groups), name  # two heads
