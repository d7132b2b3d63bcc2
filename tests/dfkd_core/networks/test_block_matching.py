"""Block matching: a narrowed copy is compared with its teacher channel by channel, and only such a copy is."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.networks import losses
from dfkd_core.networks.batchnorm import renormalise
from dfkd_core.networks.block_matching import BlockMatching
from dfkd_core.networks.feature_distillation import Transfer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.config import Training
from tests.dfkd_core.tiny import SHAPE, tiny_network, tiny_teacher


def images(count: int = 32) -> Tensor:
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(0))


def whole_teacher(*, batchnorm: bool) -> Teacher:
    """A teacher whose BatchNorm, if it has one, is no longer as it was made."""
    found, draws = tiny_teacher(batchnorm=batchnorm), torch.Generator().manual_seed(1)
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert values is not None
                values.copy_(0.5 + torch.rand(values.shape, generator=draws))
    return found


def narrowed(whole: Teacher, kept: list[int]) -> nn.Sequential:
    """The tiny teacher with these channels."""
    twin = copy.deepcopy(whole.network)
    assert isinstance(twin, nn.Sequential)
    convolution, norm, linear = twin[0], twin[1], twin[5]
    convolution.weight.data, convolution.bias.data = convolution.weight[kept].data, convolution.bias[kept].data
    convolution.out_channels = len(kept)
    if isinstance(norm, nn.BatchNorm2d):
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name).data = getattr(norm, name)[kept].data
    linear.weight.data = linear.weight.unflatten(1, (-1, 9))[:, kept].flatten(1).data
    return twin.requires_grad_(True)


def matched(student: nn.Module, whole: Teacher) -> BlockMatching:
    return BlockMatching.of(student, whole.network, images(1))


def loss(blocks: BlockMatching, student: nn.Module, whole: Teacher, *, count: int = 32) -> Tensor:
    with torch.no_grad(), blocks.watching_teacher(count) as theirs:
        whole(images())
    with blocks.watching_student() as ours:
        student(images())
    return blocks.loss(ours, theirs)


@pytest.mark.parametrize("batchnorm", [True, False])
def test_the_channels_that_stayed_are_found_by_their_values(batchnorm: bool) -> None:
    whole = whole_teacher(batchnorm=batchnorm)
    student = narrowed(whole, [7, 2, 9])
    blocks = matched(student, whole)
    assert len(blocks) == 1
    assert loss(blocks, student.eval(), whole).item() == pytest.approx(0, abs=1e-9)


def test_a_student_with_temporary_batchnorms_is_a_narrowed_copy() -> None:
    whole = whole_teacher(batchnorm=False)
    student = narrowed(whole, [0, 5, 11])
    renormalise(student)
    assert len(matched(student, whole)) == 1


@pytest.mark.parametrize("batchnorm", [True, False])
def test_other_networks_have_no_blocks_in_common_with_the_teacher(batchnorm: bool) -> None:
    whole = whole_teacher(batchnorm=batchnorm)
    assert len(matched(tiny_network(batchnorm=batchnorm), whole)) == 0
    assert len(matched(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), whole)) == 0


def test_a_few_channels_with_equal_values_do_not_hide_the_others() -> None:
    whole = whole_teacher(batchnorm=True)
    for values in whole.network[1].state_dict().values():  # type: ignore[index]
        if values.ndim:
            values[3] = values[4]
    assert len(matched(narrowed(whole, [1, 3, 6, 8]), whole)) == 1
    assert len(matched(narrowed(whole, [3, 4]), whole)) == 0


def test_the_loss_is_the_error_in_units_of_each_channels_variance() -> None:
    draws = torch.Generator().manual_seed(2)
    wanted = torch.randn((8, 3, 4, 4), generator=draws) * torch.tensor([1.0, 5.0, 20.0]).view(1, 3, 1, 1)
    guess = wanted + 0.1 * wanted.var(dim=(0, 2, 3), correction=0).sqrt().view(1, 3, 1, 1)
    assert losses.unexplained_channels(guess, wanted).item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_few_rows_at_a_time_give_the_loss_and_the_gradient_of_whole_maps(
    dtype: torch.dtype, order: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CACHED", 64)
    draws = torch.Generator().manual_seed(4)
    wanted = (3 + torch.randn((5, 6, 7, 4), generator=draws)).to(dtype).contiguous(memory_format=order)
    guess = torch.randn((5, 6, 7, 4), generator=draws).to(dtype).contiguous(memory_format=order).requires_grad_()
    (2 * losses.unexplained_channels(guess, wanted[:4])).backward()
    whole, target = guess.detach()[:4].float().requires_grad_(), wanted[:4].float()
    (2 * ((whole - target).square().mean((0, 2, 3)) / target.var((0, 2, 3), correction=0)).mean()).backward()
    assert guess.grad is not None
    assert whole.grad is not None
    close = 1e-5 if dtype is torch.float32 else 1e-2
    torch.testing.assert_close(guess.grad[:4].float(), whole.grad, rtol=close, atol=1e-7)
    assert not guess.grad[4].any()


def test_a_channel_that_hardly_varies_does_not_decide() -> None:
    wanted = torch.randn((8, 2, 4, 4), generator=torch.Generator().manual_seed(3))
    wanted[:, 1] = 1.0
    guess = wanted.clone()
    guess[:, 1] += 0.01
    assert losses.unexplained_channels(guess, wanted).item() < 0.05


def test_learning_brings_the_student_nearer_and_leaves_the_teacher_alone() -> None:
    whole = whole_teacher(batchnorm=True)
    student = narrowed(whole, [7, 2, 9]).train()
    transfer = Transfer(student, whole, Training(block_weight=1.0))
    assert transfer.active
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    found = []
    for _ in range(40):
        wrong = transfer.compare(images(), featured=32, rate=1.0)[2]
        found.append(wrong.item())
        optimizer.zero_grad()
        wrong.backward()
        optimizer.step()
    assert found[-1] < 0.5 * found[0]
    assert all(parameter.grad is None for parameter in whole.parameters())
    assert not any(module._forward_hooks for module in [*whole.modules(), *student.modules()])


def test_blocks_are_compared_on_the_first_images_and_weigh_less_as_the_rate_falls() -> None:
    whole = whole_teacher(batchnorm=True)
    student = narrowed(whole, [7, 2, 9]).train()
    transfer = Transfer(student, whole, Training(block_weight=2.0))
    full, half, none = (
        transfer.compare(images(), featured=featured, rate=rate)[2].item()
        for featured, rate in ((16, 1.0), (16, 0.5), (0, 1.0))
    )
    assert half == pytest.approx(full / 2, rel=1e-5)
    assert none == 0
