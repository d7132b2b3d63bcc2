"""Max pooling: the values and gradients of torch's, whichever way they are computed."""

import pytest
import torch
import torch.nn.functional as F

from dfkd_core.networks.pooling import MaxPool2d, max_pool2d

SHAPES = [(3, 2, 8, 6), (1, 1, 2, 2), (2, 3, 7, 8), (2, 3, 8, 7), (0, 3, 4, 4), (2, 5, 6)]


def images(*shape: int) -> torch.Tensor:
    """With ties, infinities and a number that is none."""
    drawn = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(1)).float()
    if drawn.numel() > 20:
        drawn.view(-1)[[3, 11, 19]] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    return drawn


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_are_torch_s(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    x = images(*shape)
    x = x.to(memory_format=layout) if x.dim() == 4 else x
    assert torch.equal(MaxPool2d(2)(x).nan_to_num(7), F.max_pool2d(x, 2).nan_to_num(7))


@pytest.mark.parametrize(
    "window", [(3, 2, 1, 1, False), (2, 1, 0, 1, False), (2, 2, 1, 1, False), (2, 2, 0, 2, False), (2, 2, 0, 1, True)]
)
def test_other_windows_are_torch_s(window: tuple[int, int, int, int, bool]) -> None:
    *numbers, ceil_mode = window
    x = images(2, 3, 9, 8)
    expected = F.max_pool2d(x, *numbers, ceil_mode=ceil_mode)
    assert torch.equal(max_pool2d(x, *numbers, ceil_mode=ceil_mode).nan_to_num(7), expected.nan_to_num(7))


def test_a_gradient_goes_to_the_first_of_equals() -> None:
    x = torch.ones((1, 1, 4, 4), requires_grad=True)
    (gradient,) = torch.autograd.grad(MaxPool2d(2)(x).sum(), x)
    assert torch.equal(gradient.nonzero()[:, 2:], torch.tensor([[0, 0], [0, 2], [2, 0], [2, 2]]))


def test_an_export_has_one_operator() -> None:
    program = torch.export.export(MaxPool2d(2).eval(), (images(2, 3, 8, 8),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["aten.max_pool2d.default"]
