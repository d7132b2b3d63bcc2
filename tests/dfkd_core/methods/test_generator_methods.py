"""The particular behaviour of each method with a generator. `test_method_contract` tests their common rules."""

import math
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.methods import build_synthesizer
from dfkd_core.methods.parts.generator_method import GeneratorMethod
from dfkd_core.networks import losses
from dfkd_core.networks.generators import ConditionalGenerator
from dfkd_core.networks.teacher import Teacher
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.tiny import tiny_network, tiny_teacher


def method(name: str, teacher: Teacher | None = None, *, seed: int = 0, **changes: Any) -> GeneratorMethod[Any]:
    small = {"latent_dim": 6, "width": 4, "batch_size": 24}
    config = DistillConfig.model_validate({"method": name, "method_options": {**small, **changes}})
    made = build_synthesizer(config, teacher or tiny_teacher(), streams=Streams(seed), device=torch.device("cpu"))
    assert isinstance(made, GeneratorMethod)
    return made


@pytest.mark.parametrize(
    ("name", "alone", "with_student"),
    [
        ("cgdd", {"nll", "norm"}, set()),
        ("dafl", {"onehot", "balance", "activation"}, set()),
        ("ddad", {"onehot", "balance", "bn"}, {"adv"}),
        ("dfad", {"balance"}, {"adv"}),
        ("dfq", {"onehot", "balance", "bn"}, {"adv"}),
        ("rdskd", {"onehot", "balance", "diversity"}, set()),
    ],
)
def test_the_terms_of_a_method(name: str, alone: set[str], with_student: set[str]) -> None:
    source = method(name, tiny_teacher(batchnorm=True))
    assert set(source.synthesize(None, rate=1.0)) == alone
    assert set(source.synthesize(tiny_network(), rate=1.0)) == alone | with_student


def test_a_published_dfad_learns_nothing_before_there_is_a_student() -> None:
    source = method("dfad", balance_weight=0.0)
    before = source.network.conv1.weight.clone()
    assert source.synthesize(None, rate=1.0) == {}
    assert torch.equal(before, source.network.conv1.weight)


def test_learning_against_a_student_enlarges_the_disagreement() -> None:
    source, student = method("dfad", balance_weight=0.0, learning_rate=5e-3), tiny_network()
    first = source.synthesize(student, rate=1.0)["adv"]
    for _ in range(30):
        last = source.synthesize(student, rate=1.0)["adv"]
    assert last < first - 0.1


@pytest.mark.parametrize(("disagreement", "temperature"), [("l1", 1.0), ("kl", 1.0), ("kl", 3.0), ("js", 2.0)])
def test_the_adversarial_term_is_minus_the_disagreement(disagreement: str, temperature: float) -> None:
    teacher, student = tiny_teacher(), tiny_network()
    told = {"disagreement": disagreement, "temperature": temperature}
    images = method("dfad", teacher, **told).sample(24, generator=Streams(0)["generator-noise"])
    term = method("dfad", teacher, **told).synthesize(student, rate=1.0)["adv"]
    with torch.no_grad():
        each = losses.disagreement(disagreement, teacher(images), student(images), temperature=temperature)
    assert term.item() == pytest.approx(-each.mean().item(), rel=1e-5)


@pytest.mark.parametrize("disagreement", ["l1", "kl"])
def test_mad_does_not_push_an_image_beyond_the_bound(disagreement: str) -> None:
    teacher, student = tiny_teacher(), tiny_network()
    told = {"disagreement": disagreement, "balance_weight": 0.0, "adv_limit": 1e-3}
    source = method("mad", teacher, **told)
    before = source.network.conv1.weight.clone()
    assert source.synthesize(student, rate=1.0)["adv"].item() == pytest.approx(-1e-3, rel=1e-3)
    assert torch.equal(before, source.network.conv1.weight)


def test_mad_bounds_each_image_or_the_mean() -> None:
    teacher, student = tiny_teacher(), tiny_network()
    images = method("mad", teacher).sample(24, generator=Streams(0)["generator-noise"])
    with torch.no_grad():
        each = (teacher(images) - student(images)).abs().mean(dim=1).numpy()
    limit = float(np.median(each))
    for mode, expected in (("per_sample", each.clip(max=limit).mean()), ("batch_mean", min(each.mean(), limit))):
        source = method("mad", teacher, adv_limit=limit, bound_mode=mode)
        assert source.synthesize(student, rate=1.0)["adv"].item() == pytest.approx(-expected, rel=1e-4)
    assert each.clip(max=limit).mean() < min(each.mean(), limit) * 0.99


@pytest.mark.parametrize(("conditioning", "terms"), [("uncond", {"nll"}), ("sum", {"nll", "norm"})])
def test_mad_is_trained_alone_first(conditioning: str, terms: set[str]) -> None:
    source = method("mad", conditioning=conditioning, balance_weight=0.0)
    assert set(source.synthesize(None, rate=1.0)) == terms
    assert set(source.synthesize(tiny_network(), rate=1.0)) == (terms - {"nll"}) | {"adv"}
    both = method("mad", conditioning=conditioning, nll_weight=1.0).synthesize(tiny_network(), rate=1.0)
    assert {"nll", "adv"} <= set(both)


@pytest.mark.parametrize("conditioning", ["sum", "cat"])
def test_a_generator_learns_to_make_the_class_that_it_is_told(conditioning: str) -> None:
    teacher = tiny_teacher()
    source = method("cgdd", teacher, conditioning=conditioning, learning_rate=1e-2)
    assert isinstance(source.network, ConditionalGenerator)
    for _ in range(80):
        source.synthesize(None, rate=1.0)
    z, classes = source.network.inputs(200, generator=torch.Generator().manual_seed(5))
    made = teacher.label(source.network(z, classes).detach()).argmax(dim=1)
    assert (made == classes).double().mean() > 0.8


def test_the_class_asked_for_is_the_target_of_the_cross_entropy() -> None:
    teacher = tiny_teacher()
    twin = method("cgdd", teacher)
    assert isinstance(twin.network, ConditionalGenerator)
    z, classes = twin.network.inputs(24, generator=Streams(0)["generator-noise"])
    expected = F.cross_entropy(teacher.label(twin.network.train()(z, classes).detach()), classes)
    assert method("cgdd", teacher).synthesize(None, rate=1.0)["nll"].item() == pytest.approx(expected.item())


def test_an_embedding_joins_the_noise_by_sum_or_behind_it() -> None:
    added = method("cgdd", conditioning="sum").network
    joined = method("cgdd", conditioning="cat").network
    assert isinstance(added, ConditionalGenerator)
    assert isinstance(joined, ConditionalGenerator)
    z, classes = added.inputs(8, generator=torch.Generator().manual_seed(0))
    assert z.shape == (8, 6)
    assert classes.shape == (8,)
    assert (added.body.latent_dim, joined.body.latent_dim) == (6, 12)
    shifted = added.train()(z - added.embedding[classes], classes)
    torch.testing.assert_close(shifted, added.body.train()(z), rtol=1e-3, atol=1e-4)


def reference(teacher: Teacher, images: Tensor) -> dict[str, float]:
    """RDSKD's confidence and balance in NumPy."""
    logits = teacher.label(images).double().numpy()
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return {"onehot": -np.log(p.max(axis=1)).mean(), "balance": (p.mean(axis=0) * np.log(p.mean(axis=0))).sum()}


def test_rdskd_takes_its_references_anew_once_in_an_epoch() -> None:
    """Updates 0 and 1 of an epoch still use the previous references, 0 at the start."""
    teacher = tiny_teacher()
    source = method("rdskd", teacher, epoch_updates=3, reference_update=1, learning_rate=1e-6)
    noise, references = Streams(0)["generator-noise"], {"onehot": 0.0, "balance": 0.0}
    for update in range(8):
        inputs = source.network.inputs(24, generator=noise)
        now = reference(teacher, source.network.train()(*inputs).detach())
        terms = source.synthesize(None, rate=1.0)
        for name, value in now.items():
            assert terms[name].item() == pytest.approx(math.exp(value - references[name]), rel=1e-3), (update, name)
        if update % 3 == 1:
            references = now


def test_rdskd_without_increments_has_the_plain_terms() -> None:
    teacher = tiny_teacher()
    images = method("rdskd", teacher).sample(24, generator=Streams(0)["generator-noise"])
    terms = method("rdskd", teacher, increments=False, diversity="batch").synthesize(None, rate=1.0)
    expected = reference(teacher, images)
    assert {name: terms[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)
    ratio = losses.diversity_ratio(images, teacher.label(images), per_pair=False)
    assert terms["diversity"].item() == pytest.approx(ratio.item(), rel=1e-4)


def test_rdskd_keeps_its_references_over_a_restore_and_drops_them_at_a_restart() -> None:
    source = method("rdskd", epoch_updates=5)
    for _ in range(3):
        source.synthesize(None, rate=1.0)
    other = method("rdskd", epoch_updates=5)
    other.restore(source.state())
    assert other.state()["references"] == source.state()["references"] != {"onehot": 0.0, "balance": 0.0}
    source.restart()
    assert source.state()["references"] == {"onehot": 0.0, "balance": 0.0}
    assert source.state()["updates"] == 0


@pytest.mark.parametrize(("sampling", "moves"), [("running", False), ("batch", True)])
def test_rdskd_samples_with_running_or_batch_statistics(sampling: str, moves: bool) -> None:
    source = method("rdskd", sampling=sampling)
    source.synthesize(None, rate=1.0)
    before = source.network.norm1.running_mean.clone()
    source.sample(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before, source.network.norm1.running_mean) != moves


PUBLISHED: dict[str, dict[str, Any]] = {
    "cgdd": {"training.hard_weight": 1.0, "method_options.conditioning": "cat"},
    "dafl": {"training.updates_per_round": 1, "method_options.learning_rate": 0.02, "budget.steps": 240_000},
    "ddad": {"training.updates_per_round": 5, "method_options.bn_weight": 1.0, "method_options.balance_weight": 0.0},
    "dfad": {"training.updates_per_round": 5, "method_options.balance_weight": 0.0, "budget.steps": 125_000},
    "dfq": {"training.updates_per_round": 10, "method_options.betas": [0.5, 0.999], "budget.steps": 80_000},
    "mad": {"memory": "ema", "memory_options.decay": 0.95, "training.replay_share": 0.5},
    "rdskd": {"training.temperature": 10.0, "method_options.warmup_rounds": 2400, "steadiness.consolidation": 1.0},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_paper_preset_holds_the_published_settings(name: str) -> None:
    config = DistillConfig.model_validate({"method": name, "preset": "paper-reconstructed"})
    found = {path: attrgetter(path)(config) for path in PUBLISHED[name]}
    assert found == PUBLISHED[name]
    assert config.method_options.updates_per_round == 1
