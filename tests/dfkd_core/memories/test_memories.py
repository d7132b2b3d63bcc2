from typing import Any

import pytest
import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.memories.codes import CodePrior
from dfkd_core.memories.none import NoMemory
from dfkd_core.memories.priority import PriorityMemory, priorities
from dfkd_core.memories.reservoir import ReservoirMemory
from dfkd_core.memories.vae import VaeMemory
from dfkd_core.networks import losses
from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.options.memories.none import NoMemoryOptions
from dfkd_core.options.memories.priority import PriorityOptions
from dfkd_core.options.memories.reservoir import ReservoirOptions
from dfkd_core.options.memories.vae import VaeOptions
from dfkd_core.rng import Streams
from tests.dfkd_core.tiny import tiny_network, tiny_teacher

CPU = torch.device("cpu")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(teacher: Teacher, count: int = 40, *, seed: int = 0, shape: tuple[int, ...] = (1, 8, 8)) -> Batch:
    images = torch.rand((count, *shape), generator=draws(seed)) * 3 - 1
    return Batch(images=images, teacher_logits=teacher.label(images))


def vae(teacher: Teacher, **changes: Any) -> VaeMemory:
    small = {"latent_dim": 5, "width": 4, "batch_size": 32, "agreement_gate": 0.0}
    options = VaeOptions.model_validate({**small, **changes})
    return VaeMemory(options, teacher, streams=Streams(0), device=CPU)


def test_no_memory_replays_nothing() -> None:
    teacher = tiny_teacher()
    memory = NoMemory(NoMemoryOptions(), teacher, streams=Streams(0), device=CPU)
    assert memory.remember(fresh(teacher)) == {}
    assert memory.replay(4, generator=draws()) is None
    assert memory.num_bytes == 0


def test_reservoir_replays_what_it_was_shown_with_cached_logits() -> None:
    teacher = tiny_teacher()
    memory = ReservoirMemory(ReservoirOptions(capacity=400), teacher, streams=Streams(0), device=CPU)
    assert memory.replay(4, generator=draws()) is None
    shown = fresh(teacher)
    memory.remember(shown)
    replayed = memory.replay(100, generator=draws())
    assert replayed is not None
    distance = (replayed.images.unsqueeze(1) - shown.images).abs().amax(dim=(2, 3, 4))  # (100, 40)
    nearest = distance.argmin(dim=1)
    assert distance.amin(dim=1).max() <= 3 / 255 / 2 + 1e-6
    torch.testing.assert_close(replayed.teacher_logits, shown.teacher_logits[nearest], rtol=1e-3, atol=1e-2)


def test_reservoir_bytes_count_8_bit_images_and_16_bit_logits() -> None:
    memory = ReservoirMemory(ReservoirOptions(capacity=400), tiny_teacher(), streams=Streams(0), device=CPU)
    assert memory.num_bytes == 400 * (64 + 2 * 4)


def test_reservoir_keeps_16_bits_where_8_would_change_the_classes() -> None:
    sharp = tiny_teacher()
    space = InputSpace(shape=(1, 8, 8), low=(-1000.0,), high=(1000.0,), range_known=False)
    teacher = Teacher(sharp.network, space, num_classes=4, classifier=None)  # 8 bits of that range: steps of 8
    memory = ReservoirMemory(ReservoirOptions(capacity=400), teacher, streams=Streams(0), device=CPU)
    for seed in range(26):
        memory.remember(fresh(teacher, seed=seed))
    assert [warning.code for warning in memory.warnings] == ["reservoir-not-8-bit"]
    memory.remember(fresh(teacher, seed=99))
    replayed = memory.replay(50, generator=draws())
    assert replayed is not None
    same = teacher.label(replayed.images).argmax(dim=1) == replayed.teacher_logits.argmax(dim=1)
    assert same.double().mean() > 0.95
    twin = ReservoirMemory(ReservoirOptions(capacity=400), teacher, streams=Streams(0), device=CPU)
    twin.restore(memory.state())
    again = twin.replay(50, generator=draws())
    assert again is not None
    assert torch.equal(again.images, replayed.images)


def test_vae_memory_of_default_size_takes_about_2_mb() -> None:
    teacher = tiny_teacher(shape=(3, 32, 32))
    memory = VaeMemory(VaeOptions(), teacher, streams=Streams(0), device=CPU)
    assert 2.0e6 < memory.num_bytes < 2.2e6
    decoder = sum(4 * parameter.numel() for parameter in memory.decoder.parameters())
    assert decoder / memory.num_bytes > 0.98


def test_the_vae_loss_is_its_weighted_terms() -> None:
    teacher = tiny_teacher(batchnorm=True)
    memory = vae(teacher, feature_weight=1.0, bn_weight=1.0, prior_match_weight=1.0)
    terms = memory.terms(fresh(teacher))
    assert set(terms) == {"pixel", "logit", "kld", "feature", "bn", "prior"}
    assert set(vae(teacher).terms(fresh(teacher))) == {"pixel", "logit", "kld"}


def decoder_gradient(memory: VaeMemory, batch: Batch) -> list[Tensor]:
    loss = losses.weighted_sum(memory.terms(batch))
    return list(torch.autograd.grad(loss, list(memory.decoder.parameters())))


def elbo_gradient(memory: VaeMemory, batch: Batch, teacher: Teacher) -> list[Tensor]:
    """Of pixel L1 + logit L1 + 1e-5 KLD, written out, with the noise that a fresh memory draws first."""
    mu, logvar = memory.encoder.train()(batch.images)
    noise = torch.randn(mu.shape, generator=Streams(0)["vae"])
    reconstruction = memory.decoder.train()(mu + noise * torch.exp(logvar / 2))
    loss = (reconstruction - batch.images).abs().mean()
    loss = loss + (teacher(reconstruction) - batch.teacher_logits).abs().mean()
    loss = loss + 1e-5 * (-0.5 * (1 + logvar - mu**2 - logvar.exp())).sum(dim=1).mean()
    return list(torch.autograd.grad(loss, list(memory.decoder.parameters())))


@pytest.mark.parametrize(("prior_match_weight", "equal"), [(0.0, True), (1.0, False)])
def test_the_decoder_follows_the_elbo_alone_unless_prior_matching_is_asked(
    prior_match_weight: float, equal: bool
) -> None:
    teacher = tiny_teacher()
    batch = fresh(teacher)
    options = {"kld_weight": 1e-5, "pixel_weight": 1.0, "logit_weight": 1.0, "prior_match_weight": prior_match_weight}
    actual = decoder_gradient(vae(teacher, **options), batch)
    expected = elbo_gradient(vae(teacher, **options), batch, teacher)
    close = [torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(actual, expected, strict=True)]
    assert all(close) == equal


def test_inference_leaves_no_gradient_in_the_decoder() -> None:
    teacher = tiny_teacher()
    memory = vae(teacher)
    memory.remember(fresh(teacher))
    for parameter in memory.decoder.parameters():
        parameter.grad = None
    assert memory.replay(16, generator=draws()) is not None
    assert all(parameter.grad is None for parameter in memory.decoder.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("prior", ["standard", "fitted"])
def test_inference_balances_the_classes_and_makes_them_surer(prior: str) -> None:
    teacher = tiny_teacher()
    memory = vae(teacher, prior=prior, inference_steps=20, inference_learning_rate=0.1, output="bounded")
    with torch.no_grad():
        memory.decoder.conv3.weight.mul_(20)  # so that codes matter without any training
    memory.decoder.eval()
    z = torch.randn((64, 5), generator=draws())
    before, after = (teacher.label(memory.decoder(codes).detach()) for codes in (z, memory.balanced(z)))

    def objective(logits: Tensor) -> float:
        return float(5 * losses.class_balance(logits) + losses.onehot(logits))

    assert objective(after) < objective(before) - 0.003


def test_replay_waits_for_reconstructions_that_keep_their_class() -> None:
    teacher = tiny_teacher()
    memory = vae(teacher, agreement_gate=0.5, learning_rate=2e-2)
    batch = fresh(teacher)
    assert memory.replay(8, generator=draws()) is None
    memory.remember(batch)
    assert memory.replay(8, generator=draws()) is None
    for _ in range(100):
        memory.remember(batch)
        if memory.reconstruction_agreement > 0.5:
            break
    assert memory.reconstruction_agreement > 0.5
    replayed = memory.replay(8, generator=draws())
    assert replayed is not None
    torch.testing.assert_close(replayed.teacher_logits, teacher.label(replayed.images))


def test_the_vae_learns_to_reconstruct() -> None:
    teacher = tiny_teacher()
    memory = vae(teacher, learning_rate=5e-3, self_replay_share=0.2)
    batch = fresh(teacher, 16)
    first = memory.remember(batch)
    for _ in range(40):
        last = memory.remember(batch)
    assert last["vae_pixel"] < first["vae_pixel"]
    assert last["vae_logit"] < first["vae_logit"]


@pytest.mark.parametrize("prior", ["standard", "fitted"])
def test_a_restored_vae_continues_bit_for_bit(prior: str) -> None:
    teacher = tiny_teacher()
    streams = Streams(0)
    options = VaeOptions(latent_dim=5, width=4, batch_size=32, agreement_gate=0.0, prior=prior)
    one = VaeMemory(options, teacher, streams=streams, device=CPU)
    one.remember(fresh(teacher))
    state, position = one.state(), streams.state()
    restored_streams = Streams(0)
    other = VaeMemory(options, teacher, streams=restored_streams, device=CPU)
    other.restore(state)
    other.encoder.load_state_dict(one.encoder.state_dict())
    restored_streams["vae"].set_state(position["vae"])
    for memory in (one, other):
        memory.remember(fresh(teacher, seed=1))
    a, b = (memory.replay(8, generator=draws()) for memory in (one, other))
    assert a is not None
    assert b is not None
    assert torch.equal(a.images, b.images)


def test_code_prior_gives_each_class_its_own_gaussian_in_equal_shares() -> None:
    prior = CodePrior(3, 2)
    classes = torch.arange(2).repeat(500)
    centres = torch.tensor([[5.0, -5.0], [-5.0, 5.0]])
    for seed in range(300):
        noise = torch.randn((1000, 2), generator=draws(seed)) * torch.tensor([1.0, 0.5])
        prior.observe(centres[classes] + noise, classes)
    codes = prior.sample(4000, generator=draws())
    first = codes[codes[:, 0] > 0]
    assert len(first) / 4000 == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(first.mean(dim=0), centres[0], atol=0.1, rtol=0)
    torch.testing.assert_close(first.std(dim=0), torch.tensor([1.0, 0.5]), atol=0.05, rtol=0)


def test_priorities_follow_a_power_of_the_divergence_and_leave_nothing_out() -> None:
    divergence = torch.tensor([0.0, 0.25, 4.0])
    weights = [0.001**0.5, 0.5, 2.0]
    expected = torch.tensor([weight / sum(weights) for weight in weights])
    torch.testing.assert_close(priorities(divergence, exponent=0.5), expected)


def test_priority_memory_replays_more_often_what_the_student_has_not_learnt() -> None:
    teacher, student = tiny_teacher(), tiny_network(batchnorm=True).train()
    options = PriorityOptions(capacity=400, exponent=1.0, correction=0.0)
    memory = PriorityMemory(options, teacher, streams=Streams(0), device=CPU)
    memory.observe_student(student)
    assert memory.replay(4, generator=draws()) is None
    memory.remember(fresh(teacher))
    before = [tensor.clone() for tensor in student.state_dict().values()]
    memory.observe_student(student)
    assert student.training
    assert all(torch.equal(one, other) for one, other in zip(before, student.state_dict().values(), strict=True))
    replayed = memory.replay(20_000, generator=draws())
    assert replayed is not None
    kept = memory._bank.all()
    log_p, log_q = (x.log_softmax(dim=1) for x in (kept.teacher_logits, student.eval()(kept.images).detach()))
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    share = [(replayed.images == image).flatten(1).all(dim=1).float().mean() for image in kept.images]
    torch.testing.assert_close(torch.stack(share), divergence / divergence.sum(), atol=0.012, rtol=0)


def test_a_restored_priority_memory_replays_the_same() -> None:
    teacher, student = tiny_teacher(), tiny_network()
    one, other = (PriorityMemory(PriorityOptions(), teacher, streams=Streams(0), device=CPU) for _ in range(2))
    one.remember(fresh(teacher))
    other.restore(one.state())
    replays = []
    for memory in (one, other):
        memory.observe_student(student)
        replays.append(memory.replay(8, generator=draws()))
    assert replays[0] is not None
    assert replays[1] is not None
    assert torch.equal(replays[0].images, replays[1].images)
