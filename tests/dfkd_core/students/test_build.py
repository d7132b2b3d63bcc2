"""The description and the network built from it are the same network."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dfkd_core.architectures import ARCHITECTURES, describe
from dfkd_core.architectures.layers import AvgPool, Dropout, Flatten, Linear, NetworkDescription, ReLU
from dfkd_core.students.build import CountedDropout, Network, build_network

COUNTERS = ("num_batches_tracked", "draws", "seed")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are faster on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, *, channels: int = 3, width: float = 1.0, seed: int = 0, **options: float) -> Network:
    description = describe(name, input_shape=(channels, 32, 32), num_classes=10, width=width, options=options)
    return build_network(description, generator=torch.Generator().manual_seed(seed))


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def measured_macs(network: nn.Module, batch: Tensor) -> int:
    """Multiply-adds for one image, counted by hooks on the modules that really run."""
    seen: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        positions = output[0].numel() // weight.shape[0]
        seen.append(positions * weight.numel())

    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    network(batch)
    for handle in handles:
        handle.remove()
    return sum(seen)


@pytest.mark.parametrize("width", [0.25, 1.0])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_counts_of_the_description_are_those_of_the_network(name: str, width: float) -> None:
    description = describe(name, input_shape=(3, 32, 32), num_classes=10, width=width)
    network = build_network(description, generator=torch.Generator().manual_seed(0)).eval()
    tensors = {key: tuple(t.shape) for key, t in network.state_dict().items() if key.rsplit(".")[-1] not in COUNTERS}
    assert tensors == description.tensors()
    assert sum(parameter.numel() for parameter in network.parameters()) == description.parameters
    assert measured_macs(network, images(1)) == description.macs


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.startswith("lenet")])
def test_counts_agree_on_oblong_images_too(name: str) -> None:
    description = describe(name, input_shape=(3, 19, 40), num_classes=4, width=0.25)
    network = build_network(description, generator=torch.Generator().manual_seed(0)).eval()
    batch = torch.rand(1, 3, 19, 40, generator=torch.Generator().manual_seed(0))
    assert measured_macs(network, batch) == description.macs
    assert network(batch).shape == (1, 4)


@settings(max_examples=25)
@given(
    name=st.sampled_from([name for name in ARCHITECTURES if not name.startswith("lenet")]),
    width=st.floats(0.001, 0.4),
    shape=st.tuples(st.integers(1, 5), st.integers(8, 40), st.integers(8, 40)),
    num_classes=st.integers(1, 12),
)
def test_any_size_is_counted_as_it_is_built(
    name: str, width: float, shape: tuple[int, int, int], num_classes: int
) -> None:
    description = describe(name, input_shape=shape, num_classes=num_classes, width=width)
    network = build_network(description, generator=torch.Generator().manual_seed(0)).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == description.parameters
    assert measured_macs(network, torch.zeros(1, *shape)) == description.macs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_of_every_layer_agree(name: str) -> None:
    description = describe(name, input_shape=(3, 32, 32), num_classes=10, width=0.25)
    network = build_network(description, generator=torch.Generator().manual_seed(0)).eval()
    shape: tuple[int, ...] = (3, 32, 32)
    x = images()
    for layer_name, layer in description.layers:
        x, shape = network.get_submodule(layer_name)(x), layer.output_shape(shape)
        assert tuple(x.shape[1:]) == shape, layer_name


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "wrn_16_1", "vgg8", "mobilenetv2"])
def test_equal_seeds_give_equal_bits_and_nobody_elses_numbers_move(name: str) -> None:
    before = torch.get_rng_state()
    first, second, other = (build(name, width=0.25, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fresh_network_is_finite_trains_and_sees_every_weight(name: str) -> None:
    network = build(name, width=0.25)
    network(images(4)).square().mean().backward()
    assert network.training
    for key, parameter in network.named_parameters():
        assert parameter.dtype == torch.float32, key
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter).all(), key
        assert torch.isfinite(parameter.grad).all(), key


def test_he_normal_has_the_published_spread() -> None:
    weight = build("wrn_16_2").get_parameter("block3.layer.1.conv2.weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.01)
    assert abs(weight.mean().item()) < 1e-3


def test_uniform_stays_in_its_bound_and_fills_it() -> None:
    network = build("resnet18", width=0.5)
    weight = network.get_parameter("layer2.0.conv1.weight")
    bound = 1 / math.sqrt(9 * 32)
    assert 0.99 * bound < weight.abs().max().item() <= bound
    assert network.get_parameter("linear.bias").abs().max().item() > 0


def test_wide_residual_networks_start_with_a_zero_bias() -> None:
    assert build("wrn_16_1").classifier.bias.count_nonzero() == 0


def test_the_classifier_is_the_last_linear_layer_of_a_copy_too() -> None:
    for name in ARCHITECTURES:
        network = build(name, width=0.25)
        twin = copy.deepcopy(network)
        for one in (network, twin):
            assert one.classifier is [module for module in one.modules() if isinstance(module, nn.Linear)][-1]
            assert one.get_submodule("classifier") is one.classifier  # no child of that name is hidden
        assert twin.classifier is not network.classifier
        assert list(twin.state_dict()) == list(network.state_dict())


@torch.no_grad()
def test_a_wide_shortcut_is_fed_by_the_pre_activated_input() -> None:
    network = build("wrn_16_2").eval()
    block = network.get_submodule("block2.layer.0")
    x = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    h = block.bn1(x).relu()
    expected = block.conv2(block.bn2(block.conv1(h)).relu()) + block.convShortcut(h)
    torch.testing.assert_close(block(x), expected)
    straight = network.get_submodule("block2.layer.1")
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    inner = straight.conv2(straight.bn2(straight.conv1(straight.bn1(x).relu())).relu())
    torch.testing.assert_close(straight(x), inner + x)


@torch.no_grad()
def test_a_basic_block_adds_before_its_last_activation() -> None:
    block = build("resnet8").eval().get_submodule("layer2.0")
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    torch.testing.assert_close(block(x), (inner + block.shortcut(x)).relu())


def test_dropout_follows_its_state_and_leaves_the_global_numbers_alone() -> None:
    network = build("wrn_16_1", dropout=0.5).train()
    state, numbers = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    first, second = network(images()), network(images())
    assert not torch.equal(first, second)
    network.load_state_dict(state)
    assert torch.equal(network(images()), first)
    assert torch.equal(torch.get_rng_state(), numbers)


def test_dropout_keeps_the_mean_and_is_off_in_eval_mode() -> None:
    network = build_network(
        NetworkDescription(
            "tiny", (1, 4, 4), 16, (("drop", Dropout(0.25)), ("flat", Flatten()), ("fc", Linear(16, 16)))
        ),
        generator=torch.Generator().manual_seed(0),
    )
    dropout = network.get_submodule("drop")
    assert isinstance(dropout, CountedDropout)
    x = torch.ones(200_000)
    dropped = dropout(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout.eval()(x), x)


def test_weight_files_need_not_hold_dropouts_counters() -> None:
    network = build("mobilenetv2", width=0.25)
    weights = {
        key: value for key, value in network.state_dict().items() if key.rsplit(".")[-1] not in ("draws", "seed")
    }
    assert len(weights) == len(network.state_dict()) - 2
    build("mobilenetv2", width=0.25, seed=9).load_state_dict(weights)


def test_a_fixed_average_pooling_is_built_too() -> None:
    layers = (("relu", ReLU()), ("pool", AvgPool(2)), ("flat", Flatten()), ("fc", Linear(4, 2)))
    network = build_network(
        NetworkDescription("tiny", (1, 4, 5), 2, layers), generator=torch.Generator().manual_seed(0)
    )
    assert network(torch.ones(3, 1, 4, 5)).shape == (3, 2)
