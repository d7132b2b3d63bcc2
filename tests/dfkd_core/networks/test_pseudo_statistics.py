"""A teacher whose BatchNorms are gone gets statistics of drawn pictures, and computes what it computed."""

import torch
from torch import Tensor, nn

from dfkd_core.images.procedural import procedural_images
from dfkd_core.methods.deepinversion import DeepInversion
from dfkd_core.networks.pseudo_statistics import with_pseudo_statistics
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.deepinversion import DeepInversionOptions
from dfkd_core.rng import Streams
from tests.dfkd_core.tiny import SHAPE, tiny_teacher


def pictures(teacher: Teacher, count: int, *, seed: int = 3) -> Tensor:
    low, high = teacher.input_space.bounds()
    generator = torch.Generator().manual_seed(seed)
    return torch.lerp(low, high, procedural_images(teacher.input_space.shape, count, generator=generator))


def test_the_teacher_computes_what_it_computed_and_offers_statistics() -> None:
    teacher, images = tiny_teacher(), torch.rand((9, *SHAPE), generator=Streams(1)["images"])
    found = with_pseudo_statistics(teacher, pictures(teacher, 24).split(10))
    assert found.offers == {"batchnorm", "features"}
    torch.testing.assert_close(found(images), teacher(images))
    torch.testing.assert_close(found.forward_with_features(images)[1], teacher.forward_with_features(images)[1])
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_statistics_are_those_of_the_pictures_whatever_the_batches() -> None:
    teacher = tiny_teacher()
    shown = pictures(teacher, 24)
    convolution = teacher.network.get_submodule("0")
    variance, mean = torch.var_mean(convolution(shown), dim=(0, 2, 3), correction=0)
    found = with_pseudo_statistics(teacher, shown.split(7))
    (norm,) = (module for module in found.network.modules() if isinstance(module, nn.BatchNorm2d))
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    distances = [
        sum(float((seen - wanted).abs().sum()) for seen, wanted in (layer[0::2], layer[1::2]))
        for layer in (found.observe(images, moments=True).moments[0] for images in (shown, torch.zeros_like(shown)))
    ]
    assert distances[0] < 1e-3 < distances[1]


def test_the_teacher_itself_is_not_changed_and_its_weights_are_not_copied() -> None:
    teacher = tiny_teacher()
    before = list(teacher.network.state_dict())
    found = with_pseudo_statistics(teacher, [pictures(teacher, 8)])
    assert list(teacher.network.state_dict()) == before
    assert "batchnorm" not in teacher.offers
    held = {parameter.data_ptr() for parameter in found.parameters()}
    assert {parameter.data_ptr() for parameter in teacher.parameters()} <= held


def test_true_statistics_are_never_replaced() -> None:
    teacher = tiny_teacher(batchnorm=True)
    assert with_pseudo_statistics(teacher, [pictures(teacher, 8)]) is teacher


def test_a_network_without_convolutions_is_left_alone() -> None:
    space = tiny_teacher().input_space
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    teacher = Teacher(network, space, num_classes=4, classifier=None)
    assert "batchnorm" not in with_pseudo_statistics(teacher, [pictures(teacher, 8)]).offers


def test_a_channel_that_never_varies_is_returned_as_it_is() -> None:
    teacher = tiny_teacher()
    convolution = teacher.network.get_submodule("0")
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.weight[0].zero_()
    images = pictures(teacher, 6, seed=8)
    found = with_pseudo_statistics(teacher, [pictures(teacher, 8)])
    torch.testing.assert_close(found(images), teacher(images))


def inverted(seed: int, **options: object) -> tuple[dict[str, Tensor], Tensor]:
    """Make a batch of a teacher without BatchNorm; return the losses and the images."""
    parsed = DeepInversionOptions.model_validate({"batch_size": 8, "steps": 3, **options})
    streams, device = Streams(seed), torch.device("cpu")
    method = DeepInversion(parsed, tiny_teacher(), streams=streams, device=device)
    losses = method.synthesize(None, rate=1.0)
    return losses, method.sample(8, generator=streams["fresh"])


def test_inversion_matches_them_where_kinds_of_pictures_are_named() -> None:
    without, _ = inverted(5)
    with_them, images = inverted(5, pseudo_statistics=["shapes", "figures"])
    assert "bn" in with_them
    assert "bn" not in without
    assert torch.equal(images, inverted(5, pseudo_statistics=["shapes", "figures"])[1])
    assert not torch.equal(images, inverted(5, pseudo_statistics=["scenes"])[1])
