from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.methods.pre_dfkd import PreDfkd
from dfkd_core.networks import losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.pre_dfkd import PreDfkdOptions
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.tiny import tiny_network, tiny_teacher

PRE_DFKD_PAPER = DistillConfig.model_validate({"preset": "paper"})


def options(**changes: Any) -> PreDfkdOptions:
    return PreDfkdOptions.model_validate({"latent_dim": 6, "width": 4, "batch_size": 24, **changes})


def synthesizer(teacher: Teacher | None = None, *, seed: int = 0, **changes: Any) -> PreDfkd:
    cpu = torch.device("cpu")
    return PreDfkd(options(**changes), teacher or tiny_teacher(), streams=Streams(seed), device=cpu)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def buffers(network: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in network.buffers()]


def test_a_generator_step_leaves_the_student_as_it_was() -> None:
    student = tiny_network(batchnorm=True).train()
    before = buffers(student)
    synthesizer().synthesize(student, rate=1.0)
    assert student.training
    assert all(torch.equal(one, other) for one, other in zip(before, student.buffers(), strict=True))
    assert all(parameter.grad is None for parameter in student.parameters())


def test_the_teacher_never_has_gradients() -> None:
    teacher = tiny_teacher(batchnorm=True)
    synthesizer(teacher).synthesize(tiny_network(), rate=1.0)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_samples_are_detached_and_repeatable() -> None:
    source = synthesizer()
    images = source.sample(30, generator=draws())
    assert images.shape == (30, 1, 8, 8)
    assert not images.requires_grad
    assert torch.equal(images, synthesizer().sample(30, generator=draws()))


@pytest.mark.parametrize("disagreement", ["js", "pseudo_js"])
def test_the_terms_of_a_step(disagreement: str) -> None:
    teacher = tiny_teacher(batchnorm=True)
    source = synthesizer(teacher, disagreement=disagreement, smoothness_weight=1.0)
    terms = source.synthesize(tiny_network(), rate=1.0)
    assert set(terms) == {"onehot", "balance", "bn", "activation", "smoothness", "adv"}
    assert 0 <= terms["adv"] <= 1


def test_what_the_teacher_does_not_offer_is_left_out() -> None:
    terms = synthesizer(tiny_teacher(features=False)).synthesize(None, rate=1.0)
    assert set(terms) == {"onehot", "balance"}


def test_a_step_follows_the_gradient_of_the_weighted_terms() -> None:
    """One Adam step from fresh moments moves each weight by about the learning rate, against the gradient's sign."""
    teacher, student = tiny_teacher(), tiny_network()
    source = synthesizer(teacher, gradient_clip=None, temperature=2.0, spectral_norm=False)
    twin = synthesizer(teacher, gradient_clip=None, temperature=2.0, spectral_norm=False)
    z = torch.randn((24, 6), generator=Streams(0)["generator-noise"])
    images = twin.network.train()(z)
    logits, features = teacher.forward_with_features(images)
    divergence = losses.js_divergence(logits, student.eval()(images), temperature=2.0)
    expected = losses.onehot(logits) + 5 * losses.class_balance(logits) - 0.1 * features.abs().mean() + 1 - divergence
    weight = twin.network.conv1.weight
    (gradient,) = torch.autograd.grad(expected, [weight])
    source.synthesize(student, rate=1.0)
    moved = source.network.conv1.weight.detach() - weight.detach()
    large = gradient.abs() > 1e-4
    assert large.any()
    torch.testing.assert_close(moved[large], -source.learning_rate * gradient[large].sign(), rtol=1e-2, atol=1e-6)


def test_the_disagreement_is_not_pushed_beyond_its_limit() -> None:
    teacher, student = tiny_teacher(), tiny_network()
    with torch.no_grad():
        student[-1].weight.mul_(-100)
    only_adv = {"onehot_weight": 0.0, "balance_weight": 0.0, "activation_weight": 0.0, "spectral_norm": False}
    source = synthesizer(teacher, adv_limit=0.01, temperature=1.0, **only_adv)
    before = source.network.conv1.weight.clone()
    assert source.synthesize(student, rate=1.0)["adv"] == pytest.approx(0.99)
    assert torch.equal(before, source.network.conv1.weight)


def test_learning_makes_images_that_the_teacher_is_sure_of_and_that_are_balanced() -> None:
    source = synthesizer(learning_rate=5e-3)
    first = source.synthesize(None, rate=1.0)
    for _ in range(60):
        last = source.synthesize(None, rate=1.0)
    assert last["onehot"] < first["onehot"] / 2
    assert last["balance"] < -0.55  # four classes in balance: -0.602


def test_calm_halves_the_rate_for_good() -> None:
    source = synthesizer()
    usual = source.learning_rate
    source.back_off()
    assert source.learning_rate == usual / 2
    other = synthesizer()
    other.restore(source.state())
    assert other.learning_rate == usual / 2


def test_a_restored_synthesizer_does_not_share_its_tensors() -> None:
    teacher, student = tiny_teacher(), tiny_network()
    one, other, uninterrupted = (synthesizer(teacher) for _ in range(3))
    one.synthesize(student, rate=1.0)
    other.restore(one.state())
    other.synthesize(student, rate=1.0)  # must not move what `one` holds
    one.synthesize(student, rate=1.0)
    uninterrupted.synthesize(student, rate=1.0)
    uninterrupted.synthesize(student, rate=1.0)
    assert torch.equal(one.sample(8, generator=draws()), uninterrupted.sample(8, generator=draws()))


def test_the_paper_preset_holds_the_published_settings() -> None:
    method, memory, training = PRE_DFKD_PAPER.method_options, PRE_DFKD_PAPER.memory_options, PRE_DFKD_PAPER.training
    assert (method.latent_dim, method.width, method.learning_rate) == (1000, 64, 0.02)
    assert (method.onehot_weight, method.balance_weight, method.activation_weight, method.adv_weight) == (1, 5, 0.1, 1)
    assert (method.disagreement, method.temperature, method.batchnorm_eps) == ("pseudo_js", 3, 0.8)
    assert memory.name == "vae"
    assert (memory.latent_dim, memory.width, memory.learning_rate, memory.kld_weight) == (1000, 64, 5e-4, 1e-5)
    assert (training.optimizer, training.learning_rate, training.momentum, training.weight_decay) == (
        "sgd",
        0.1,
        0.9,
        5e-4,
    )
    assert PRE_DFKD_PAPER.procedural.share == 0
    assert PRE_DFKD_PAPER.budget.steps == 400 * 36 * 10


def test_a_restart_gives_other_weights_and_forgets_the_optimiser() -> None:
    source = synthesizer()
    source.synthesize(None, rate=1.0)
    before = source.sample(8, generator=draws())
    source.restart()
    assert not source.state()["optimizer"]["state"]
    assert not torch.allclose(source.sample(8, generator=draws()), before, atol=0.1)
