import pytest
import torch
from torch import nn

from dfkd_core.networks.batchnorm import BatchNormStatistics, ChannelMeans, channel_moments, has_batchnorm, reestimate
from tests.dfkd_core.tiny import tiny_network, tiny_teacher


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in network.modules())


def test_hooks_are_removed_even_when_something_fails() -> None:
    network = tiny_network(batchnorm=True)
    with pytest.raises(RuntimeError, match="channels"), BatchNormStatistics(network):
        network(torch.randn(2, 5, 8, 8))
    assert hooks(network) == 0
    with BatchNormStatistics(network):
        assert hooks(network) == 1


def test_distance_is_that_of_the_inputs_of_the_layer() -> None:
    teacher = tiny_teacher(batchnorm=True)
    images = torch.randn(16, 1, 8, 8)
    with BatchNormStatistics(teacher.network) as statistics:
        teacher(images)
        distance = statistics.distance()
    seen = teacher.network[0](images)
    mean, variance = seen.mean(dim=(0, 2, 3)), seen.var(dim=(0, 2, 3), correction=0)
    expected = mean.norm() + (variance - 1).norm()  # fresh running statistics are 0 and 1
    torch.testing.assert_close(distance, expected)


def test_moments_and_their_gradient_are_those_of_torch() -> None:
    maps = (3 + 2 * torch.randn(4, 3, 5, 6, dtype=torch.float64)).requires_grad_()
    mean, variance = channel_moments(maps)
    expected = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close((variance, mean), expected)
    assert torch.autograd.gradcheck(channel_moments, (maps,))


def test_channel_means_are_those_of_each_image_before_the_layer() -> None:
    teacher = tiny_teacher(batchnorm=True)
    images = torch.randn(5, 1, 8, 8, requires_grad=True)
    with ChannelMeans(teacher.network) as means:
        teacher(images)
        found = means.all()
    torch.testing.assert_close(found, teacher.network[0](images).mean(dim=(2, 3)))
    assert found.requires_grad
    assert hooks(teacher.network) == 0


def test_distance_reaches_the_images_and_not_the_teacher() -> None:
    teacher = tiny_teacher(batchnorm=True)
    images = torch.randn(4, 1, 8, 8, requires_grad=True)
    with BatchNormStatistics(teacher.network) as statistics:
        teacher(images)
        statistics.distance().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_reestimated_statistics_are_the_average_over_the_batches() -> None:
    network = tiny_network(batchnorm=True).eval()
    weights = {name: value.clone() for name, value in network.named_parameters()}
    batches = [torch.randn(8, 1, 8, 8) + shift for shift in (0, 1, 2)]
    reestimate(network, batches)
    layer = network[1]
    assert isinstance(layer, nn.BatchNorm2d)
    expected = torch.stack([network[0](images).mean(dim=(0, 2, 3)) for images in batches]).mean(dim=0)
    torch.testing.assert_close(layer.running_mean, expected)
    assert layer.momentum == 0.1
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())


def test_a_network_without_batchnorm_says_so() -> None:
    assert has_batchnorm(tiny_network(batchnorm=True))
    assert not has_batchnorm(tiny_network())
