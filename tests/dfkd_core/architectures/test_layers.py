"""A layer description knows shapes, parameters and multiply-adds without torch."""

import pytest

from dfkd_core.architectures.layers import (
    AvgPool,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool,
    NetworkDescription,
    ReLU,
    Residual,
    Sequential,
)
from dfkd_core.errors import StudentError


def test_a_convolution_counts_weights_and_positions() -> None:
    conv = Conv(3, 8, kernel=5, stride=2, padding=1, bias=True)
    assert conv.output_shape((3, 32, 20)) == (8, 15, 9)
    assert conv.parameters == 8 * 3 * 25 + 8
    assert conv.macs((3, 32, 20)) == 8 * 15 * 9 * 3 * 25


def test_groups_divide_weights_and_work() -> None:
    depthwise = Conv(8, 8, kernel=3, padding=1, groups=8)
    assert depthwise.parameters == 8 * 9
    assert depthwise.macs((8, 4, 4)) == 8 * 16 * 9


def test_a_batch_normalisation_trains_two_vectors_and_keeps_two() -> None:
    norm = BatchNorm(7)
    assert norm.parameters == 14
    assert norm.statistics() == {"running_mean": (7,), "running_var": (7,)}
    assert norm.macs((7, 3, 3)) == 0


@pytest.mark.parametrize(
    ("layer", "before", "behind"),
    [
        (MaxPool(2), (4, 7, 6), (4, 3, 3)),
        (AvgPool(3), (4, 7, 6), (4, 2, 2)),
        (GlobalAvgPool(), (4, 7, 6), (4, 1, 1)),
        (Flatten(), (4, 7, 6), (168,)),
        (ReLU(), (4, 7, 6), (4, 7, 6)),
    ],
)
def test_shapes_behind_layers_without_weights(layer: MaxPool, before: tuple[int, ...], behind: tuple[int, ...]) -> None:
    assert layer.output_shape(before) == behind
    assert layer.parameters == 0


def test_a_sequence_names_its_tensors_and_adds_up() -> None:
    head = Sequential(
        (("conv", Conv(1, 2, kernel=3)), ("norm", BatchNorm(2)), ("flat", Flatten()), ("fc", Linear(8, 5)))
    )
    assert head.output_shape((1, 4, 4)) == (5,)
    assert head.macs((1, 4, 4)) == 2 * 4 * 9 + 40
    assert list(head.weights()) == ["conv.weight", "norm.weight", "norm.bias", "fc.weight", "fc.bias"]
    assert list(head.statistics()) == ["norm.running_mean", "norm.running_var"]


def test_a_residual_block_counts_both_branches_behind_its_entry() -> None:
    halve = Conv(2, 4, kernel=3, stride=2, padding=1)
    block = Residual(
        (("conv", halve),),
        before=(("widen", Conv(1, 2, kernel=1)),),
        shortcut=(("project", Conv(2, 4, kernel=1, stride=2)),),
        after=(("mix", Conv(4, 4, kernel=1)),),
    )
    assert block.output_shape((1, 8, 8)) == (4, 4, 4)
    assert block.macs((1, 8, 8)) == 64 * 2 + 16 * 4 * 2 * 9 + 16 * 4 * 2 + 16 * 16
    assert block.parameters == 2 + 72 + 8 + 16


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv(3, 8, kernel=3), (1, 32, 32)),
        (Conv(3, 8, kernel=5), (3, 4, 4)),
        (MaxPool(2), (3, 1, 1)),
        (BatchNorm(3), (4, 2, 2)),
        (BatchNorm(3), (3,)),
        (Linear(4, 2), (5,)),
        (Residual((("conv", Conv(3, 8, kernel=1)),)), (3, 4, 4)),
    ],
)
def test_what_does_not_fit_is_refused(layer: Conv, shape: tuple[int, ...]) -> None:
    with pytest.raises(StudentError):
        layer.output_shape(shape)


def test_a_network_must_end_in_its_classes() -> None:
    with pytest.raises(StudentError, match="3 for 4 classes"):
        NetworkDescription("tiny", (1, 2, 2), 4, (("flatten", Flatten()), ("fc", Linear(4, 3))))
