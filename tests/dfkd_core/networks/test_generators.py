import pytest
import torch
from torch import nn

from dfkd_core.networks.generators import Encoder, Generator, Output
from dfkd_core.networks.teacher import InputSpace


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def generator(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 6,
    width: int = 4,
    output: Output = "bounded",
    spectral_norm: bool = True,
    seed: int = 0,
) -> Generator:
    space = InputSpace(shape=shape, low=(-1.0,) * shape[0], high=(2.0,) * shape[0], range_known=True)
    return Generator(
        space,
        latent_dim=latent_dim,
        width=width,
        batchnorm_eps=0.8,
        spectral_norm=spectral_norm,
        output=output,
        generator=torch.Generator().manual_seed(seed),
    )


def encoder(shape: tuple[int, int, int], *, latent_dim: int = 6, width: int = 4, published: bool = False) -> Encoder:
    draws = torch.Generator().manual_seed(0)
    return Encoder(shape, latent_dim=latent_dim, width=width, batchnorm_eps=0.8, published=published, generator=draws)


@pytest.mark.parametrize(("latent_dim", "channels", "expected"), [(1000, 3, 8_423_939), (100, 1, 1_049_985)])
def test_published_generator_has_the_published_parameters(latent_dim: int, channels: int, expected: int) -> None:
    network = generator((channels, 32, 32), latent_dim=latent_dim, width=64, output="standardised")
    assert count(network) == expected


def test_published_vae_has_the_published_parameters() -> None:
    decoder = generator((3, 32, 32), latent_dim=1000, width=64, output="standardised", spectral_norm=False)
    coder = encoder((3, 32, 32), latent_dim=1000, width=64, published=True)
    assert count(coder) == 4_321_872
    assert count(coder) + count(decoder) == 12_745_811


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 32, 32), (2, 5, 64), (1, 1, 1)])
@pytest.mark.parametrize("output", ["bounded", "standardised"])
def test_generator_makes_images_of_exactly_the_shape(shape: tuple[int, int, int], output: Output) -> None:
    images = generator(shape, output=output)(torch.randn(3, 6))
    assert images.shape == (3, *shape)
    assert images.is_contiguous()


def test_bounded_images_stay_within_the_valid_range() -> None:
    images = generator((3, 8, 8))(torch.randn(64, 6) * 100)
    assert images.min() >= -1
    assert images.max() <= 2


def test_standardised_images_have_zero_mean_and_unit_variance_per_channel() -> None:
    images = generator((3, 16, 16), output="standardised")(torch.randn(64, 6))
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.var(dim=(0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (3, 32, 32), (2, 5, 64), (1, 1, 1)])
@pytest.mark.parametrize("published", [True, False])
def test_encoder_takes_every_shape(shape: tuple[int, int, int], published: bool) -> None:
    mu, logvar = encoder(shape, published=published)(torch.randn(3, *shape))
    assert mu.shape == logvar.shape == (3, 6)


def test_initial_weights_are_uniform_and_biases_zero() -> None:
    network = encoder((3, 32, 32), width=16)
    largest = 0.08
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.abs().max() <= largest
            assert module.weight.std().item() == pytest.approx(largest / 3**0.5, rel=0.15)
            assert module.bias is not None
            assert not module.bias.any()


def test_equal_generators_give_equal_networks_and_leave_the_global_draws_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (generator((1, 8, 8), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_spectral_norm_makes_the_largest_singular_value_one() -> None:
    network = generator((1, 8, 8))
    for _ in range(50):  # each forward is one power iteration
        network(torch.randn(8, 6))
    weight = network.eval().conv1.weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, ord=2).item() == pytest.approx(1, abs=0.02)
