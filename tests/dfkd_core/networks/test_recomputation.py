"""Chunks whose activations are computed again: gradients and buffers are those of plain passes over the chunks."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.networks.generators import Encoder, Generator
from dfkd_core.networks.hooks import evaluating
from dfkd_core.networks.recomputation import in_chunks
from tests.dfkd_core.tiny import tiny_network, tiny_teacher


@pytest.fixture
def generator() -> Generator:
    """A generator whose buffers change with every pass: BatchNorms, and the vectors of spectral norm."""
    return Generator(
        tiny_teacher().input_space,
        latent_dim=5,
        width=4,
        batchnorm_eps=1e-5,
        spectral_norm=True,
        output="standardised",
        generator=torch.Generator().manual_seed(0),
    ).train()


def noise(count: int) -> Tensor:
    return torch.randn((count, 5), generator=torch.Generator().manual_seed(1))


def loss_of(images: Tensor) -> Tensor:
    """A loss of all images together."""
    return images.sin().mean() + images.square().mean(dim=0).sqrt().sum()


def gradients(network: nn.Module) -> Iterator[Tensor]:
    for parameter in network.parameters():
        assert parameter.grad is not None
        yield parameter.grad


def test_gradients_and_buffers_are_those_of_the_chunks_one_after_the_other(generator: Generator) -> None:
    plain, inputs = copy.deepcopy(generator), noise(10)
    wanted = torch.cat([plain(part) for part in torch.split(inputs, [4, 3, 3])])
    loss_of(wanted).backward()
    images = in_chunks(generator, generator, inputs, most=4)
    loss_of(images).backward()
    assert torch.equal(images, wanted)
    for one, other in zip(gradients(generator), gradients(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(generator.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)


def test_few_inputs_are_computed_at_once_and_activations_are_kept(generator: Generator) -> None:
    calls = []
    generator.conv3.register_forward_hook(lambda *_: calls.append(1))
    in_chunks(generator, generator, noise(4), most=4).sum().backward()
    assert len(calls) == 1
    in_chunks(generator, generator, noise(8), most=4).sum().backward()
    assert len(calls) == 1 + 2 * 2


def test_the_mode_of_the_first_pass_counts(generator: Generator) -> None:
    images, student = torch.rand((6, 1, 8, 8), requires_grad=True), tiny_network(batchnorm=True).train()
    with evaluating(student):
        wanted = torch.autograd.grad(student(images).square().sum(), images)[0]
        logits = in_chunks(student, student, images, most=2)
    before = copy.deepcopy(student.state_dict())
    found = torch.autograd.grad(logits.square().sum(), images)[0]
    torch.testing.assert_close(found, wanted)
    assert student.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_two_outputs_are_joined_each_and_without_gradients_nothing_is_kept() -> None:
    encoder = Encoder(
        (1, 8, 8),
        latent_dim=3,
        width=4,
        batchnorm_eps=1e-5,
        published=False,
        generator=torch.Generator().manual_seed(0),
    ).eval()
    images = torch.rand((7, 1, 8, 8))
    with torch.no_grad():
        mu, logvar = in_chunks(encoder, encoder, images, most=3)
    torch.testing.assert_close(torch.stack([mu, logvar]), torch.stack(encoder(images)))


@pytest.mark.parametrize(("rows", "most", "sizes"), [(15, 7, [5, 5, 5]), (9, 8, [5, 4]), (5, 1, [3, 2]), (3, 2, [3])])
def test_no_part_is_a_single_image_which_a_batchnorm_could_not_normalise(
    rows: int, most: int, sizes: list[int]
) -> None:
    seen: list[int] = []

    def compute(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images

    in_chunks(compute, nn.Identity(), torch.zeros((rows, 1)), most=most)
    assert seen == sizes
