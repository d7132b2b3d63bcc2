"""Pruning: thinner copies of real architectures still run, keep the best channels and leave the original alone."""

import copy

import pytest
import torch
from torch import nn

from dfkd_core.errors import StudentError
from dfkd_core.students.pruning import Original, count_parameters, prune, prune_to_parameters, prune_to_width, scaled
from tests.dfkd_core import zoo
from tests.dfkd_core.tiny import SHAPE, tiny_network

WHOLE = ["lenet", "resnet8", "vgg", "mobilenet_v2", "mobilenet_v3", "efficientnet", "densenet"]


def original_of(network: nn.Module, shape: tuple[int, int, int] = zoo.SHAPE) -> Original:
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return Original(network, shape, linears[-1])


@pytest.mark.parametrize("name", WHOLE)
def test_every_group_of_a_convolutional_network_is_narrowed(name: str) -> None:
    network = zoo.build(name)
    found = prune_to_width(original_of(network), 0.5)
    assert found.kept == []
    assert count_parameters(found.network) < 0.5 * count_parameters(network)
    assert found.network(torch.zeros(3, *zoo.SHAPE)).shape == (3, zoo.NUM_CLASSES)


def test_groups_that_the_graph_fixes_stay_whole_and_are_named() -> None:
    network = zoo.build("vit")
    found = prune_to_width(original_of(network), 0.5)
    assert found.kept
    assert count_parameters(found.network) < count_parameters(network)  # the hidden layers of the blocks
    assert found.network(torch.zeros(3, *zoo.SHAPE)).shape == (3, zoo.NUM_CLASSES)


def test_the_original_stays_as_it_was() -> None:
    network = zoo.build("resnet8")
    before = copy.deepcopy(network.state_dict())
    prune_to_width(original_of(network), 0.25)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not network.training


def test_the_weakest_channels_go_and_the_others_keep_their_weights() -> None:
    network = tiny_network(6)
    first, last = network[0], network[5]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for channel, size in enumerate((3.0, 0.1, 2.0, 0.2, 1.0, 0.3)):
            first.weight[channel] = size
            last.weight[:, 9 * channel : 9 * channel + 9] = size
    thinner = prune(original_of(network, SHAPE), lambda _name, count: count // 2).network
    strong = [0, 2, 4]
    assert torch.equal(thinner.get_submodule("0").weight, first.weight[strong])
    columns = [9 * channel + place for channel in strong for place in range(9)]
    assert torch.equal(thinner.get_submodule("5").weight, last.weight[:, columns])


def test_channels_that_do_nothing_can_go_without_a_trace() -> None:
    network = tiny_network(6)
    with torch.no_grad():
        network.get_submodule("0").weight[3:] = 0
        network.get_submodule("0").bias[3:] = 0
        network.get_submodule("5").weight[:, 27:] = 0
    thinner = prune_to_width(original_of(network, SHAPE), 0.5).network
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(thinner(images), network(images), atol=1e-6)


def test_the_classifier_keeps_its_outputs() -> None:
    network = zoo.build("lenet")
    assert prune_to_width(original_of(network), 0.01).network(torch.zeros(1, *zoo.SHAPE)).shape == (1, zoo.NUM_CLASSES)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_number_of_parameters_is_met_from_below(share: float) -> None:
    network = zoo.build("resnet8")
    limit = int(share * count_parameters(network))
    found, width = prune_to_parameters(original_of(network), limit)
    assert 0.85 * limit < count_parameters(found.network) <= limit
    assert 0 < width < 1


def test_a_number_that_cannot_be_met_is_refused_with_the_least() -> None:
    with pytest.raises(StudentError, match="is the least") as refusal:
        prune_to_parameters(original_of(zoo.build("lenet")), 3)
    assert refusal.value.pointer == "/student/params"


def test_equal_networks_are_narrowed_alike() -> None:
    one, other = (prune_to_width(original_of(zoo.build("resnet8")), 0.5).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("count", "width", "expected"), [(6, 0.5, 3), (5, 0.5, 3), (3, 0.1, 1), (16, 0.28, 4)])
def test_channel_counts_are_rounded_half_up(count: int, width: float, expected: int) -> None:
    assert scaled(count, width) == expected
