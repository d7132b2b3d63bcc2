"""What an image costs a network: multiply-adds by kernel, values, operations."""

import pytest
from pydantic import ValidationError

from dfkd_core.architectures import ARCHITECTURES, describe
from dfkd_core.architectures.cost import (
    KERNELS,
    WIDTHS,
    CostCounter,
    Kind,
    NetworkCost,
    cost_of,
    kernel_of_convolution,
    shares,
)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("width", [1, 4, 7, 16, 17, 40, 63.9, 64, 65, 200, 256, 4000])
def test_a_width_is_shared_by_the_kernels_on_both_sides(kind: Kind, width: float) -> None:
    found = shares(kind, width)
    assert set(found) <= set(KERNELS)
    assert sum(found.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in found.values())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_measured_width_is_its_own_kernel_and_its_neighbours_hardly_differ(width: int) -> None:
    assert shares(Kind.CONV, width)[f"conv-{width}"] == pytest.approx(1)
    for beside in (width * 0.999, width * 1.001):
        assert shares(Kind.CONV, beside)[f"conv-{width}"] == pytest.approx(1, abs=0.01)


def test_a_width_half_way_in_its_logarithm_is_shared_in_halves() -> None:
    assert shares(Kind.POINTWISE, 32) == pytest.approx({"pointwise-16": 0.5, "pointwise-64": 0.5})


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"inner_channels": 64, "groups": 1, "kernel_area": 9, "out_channels": 128}, (Kind.CONV, 64)),
        ({"inner_channels": 64, "groups": 1, "kernel_area": 9, "out_channels": 10}, (Kind.CONV, 10)),
        ({"inner_channels": 3, "groups": 1, "kernel_area": 49, "out_channels": 64}, (Kind.CONV, 3 * 49 / 9)),
        ({"inner_channels": 64, "groups": 1, "kernel_area": 1, "out_channels": 24}, (Kind.POINTWISE, 24)),
        ({"inner_channels": 1, "groups": 96, "kernel_area": 9, "out_channels": 96}, (Kind.DEPTHWISE, 1)),
        ({"inner_channels": 1, "groups": 1, "kernel_area": 25, "out_channels": 6}, (Kind.CONV, 25 / 9)),
        ({"inner_channels": 8, "groups": 32, "kernel_area": 9, "out_channels": 256}, (Kind.CONV, 8)),
    ],
)
def test_a_convolution_has_the_kind_and_width_of_its_groups(
    layer: dict[str, int], expected: tuple[Kind, float]
) -> None:
    assert kernel_of_convolution(**layer) == pytest.approx(expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_cost_of_a_network_of_the_catalogue_is_that_of_its_description(name: str) -> None:
    shape = (1, 32, 32) if name.startswith("lenet") else (3, 32, 32)
    description = describe(name, input_shape=shape, num_classes=10)
    cost = cost_of(description)
    assert sum(cost.macs.values()) == pytest.approx(description.macs, abs=len(KERNELS))
    assert 0 < cost.largest <= cost.activations
    assert cost.norm_elements <= cost.activations
    assert cost.operations > 0


def test_the_parts_of_a_counted_network_add_up() -> None:
    counter = CostCounter()
    counter.multiply(Kind.CONV, 32, macs=1000, outputs=50)
    counter.normalise(50)
    counter.pass_over(60)
    counter.multiply(Kind.MATMUL, 300, macs=77, outputs=10)
    assert counter.total() == NetworkCost(
        macs={"conv-16": 500, "conv-64": 500, "matmul-256": 77},
        elements=60,
        norm_elements=50,
        operations=4,
        activations=170,
        largest=60,
    )


def test_an_activation_whose_gradient_needs_its_input_keeps_twice_its_values() -> None:
    plain, clipped = CostCounter(), CostCounter()
    plain.pass_over(60)
    clipped.pass_over(60, keeps_input=True)
    assert (plain.total().activations, clipped.total().activations) == (60, 120)
    assert plain.total().elements == clipped.total().elements == 60


def test_pooling_of_few_channels_takes_as_long_as_sixteen_of_its_values_each() -> None:
    few, many = CostCounter(), CostCounter()
    few.pool(96, channels=6, outputs=24)
    many.pool(256, channels=16, outputs=64)
    assert (few.total().elements, few.total().activations) == (16 * 96, 24)
    assert (many.total().elements, many.total().activations) == (256, 64)


def test_a_scaled_network_has_as_many_layers_and_shares_of_the_rest() -> None:
    cost = NetworkCost(macs={"conv-64": 400}, elements=80, norm_elements=40, operations=3, activations=200, largest=40)
    assert cost.scaled(macs=0.25, activations=0.5) == NetworkCost(
        macs={"conv-64": 100}, elements=40, norm_elements=20, operations=3, activations=100, largest=20
    )


@pytest.mark.parametrize(
    "document", [{"macs": {"conv-7": 1}}, {"macs": {"conv-64": -1}}, {"elements": -1}, {"flops": 1}]
)
def test_a_cost_of_unknown_kernels_or_negative_counts_is_not_read(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NetworkCost.model_validate(document)
