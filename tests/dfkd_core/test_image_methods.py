"""The contract that every method keeps which optimises its images, and what each of them does beside it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_core.checkpoint import CheckpointWriter, written
from dfkd_core.config import DistillConfig
from dfkd_core.distill import Distilled, distill
from dfkd_core.errors import RequirementError, Stopped
from dfkd_core.methods import Synthesizer, build_synthesizer
from dfkd_core.methods.cmi import cropped
from dfkd_core.methods.csd import num_transforms, transformed
from dfkd_core.methods.fast import Fast
from dfkd_core.methods.nayer import Nayer
from dfkd_core.methods.past_statistics import PastStatistics
from dfkd_core.methods.ssd_kd import class_rarity
from dfkd_core.methods.sttss import correlated_normal, feature_weights
from dfkd_core.options import PRESETS
from dfkd_core.progress import Update
from dfkd_core.rounds import play_round
from dfkd_core.run import build_run
from dfkd_core.streams import Streams
from dfkd_core.teachers.teacher import Teacher
from tests.dfkd_core.tiny import CLASSES, SHAPE, tiny_network, tiny_teacher

CPU = torch.device("cpu")
PIXELS = {"batch_size": 8, "steps": 3, "shift": 1}
REDRAWN = {"batch_size": 8, "steps": 3, "shift": 1, "latent_dim": 5, "width": 3}
SMALL: dict[str, dict[str, Any]] = {
    "cmi": {**REDRAWN, "embedding_dim": 6, "negatives": 4, "feature_capacity": 20},
    "csd": {**REDRAWN, "probe_steps": 4, "probe_batch_size": 6, "probe_capacity": 40},
    "deepinversion": {**PIXELS, "l2_weight": 0.01},
    "fast": {**REDRAWN},
    "nayer": {**REDRAWN, "life": 2},
    "ssd_kd": {**REDRAWN},
    "sttss": {**PIXELS},
}
METHODS = list(SMALL)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config_of(method: str, **changes: Any) -> DistillConfig:
    options = {**SMALL[method], "adv_weight": 0.5, **changes}
    return DistillConfig.model_validate({"method": method, "method_options": options})


def synthesizer(
    method: str, teacher: Teacher | None = None, *, streams: Streams | None = None, **changes: Any
) -> Synthesizer:
    config = config_of(method, **changes)
    return build_synthesizer(config, teacher or tiny_teacher(), streams=streams or Streams(0), device=CPU)


def tiny_student() -> nn.Sequential:
    """With a classifier, as networks of the catalogue have one."""
    student = tiny_network(batchnorm=True)
    student.__dict__["classifier"] = student[-1]
    return student


def nearly(teacher: Teacher) -> nn.Module:
    """A student that mostly has the teacher's class, and yet differs."""
    student = copy.deepcopy(teacher.network)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draws()))
    student.__dict__["classifier"] = student[-1]
    return student


def kept(network: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_leaves_student_and_teacher_as_they_were(method: str) -> None:
    teacher, student = tiny_teacher(batchnorm=True), tiny_student().train()
    source, before = synthesizer(method, teacher), [*kept(teacher), *kept(student)]
    source.synthesize(None, rate=1.0)
    source.synthesize(student, rate=1.0)
    assert student.training
    assert not any(module.training for module in teacher.network.modules())
    after = [*kept(teacher), *kept(student)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in [*student.parameters(), *teacher.parameters()])
    assert not any(module._forward_pre_hooks for module in [*student.modules(), *teacher.modules()])


@pytest.mark.parametrize("method", METHODS)
def test_every_image_is_given_once(method: str) -> None:
    source = synthesizer(method)
    assert len(source.sample(8, generator=draws())) == 0
    source.synthesize(None, rate=1.0)
    source.synthesize(None, rate=1.0)
    first, rest = source.sample(10, generator=draws()), source.sample(10, generator=draws())
    assert (first.shape, rest.shape) == ((10, *SHAPE), (6, *SHAPE))
    assert not first.requires_grad
    assert len(torch.cat([first, rest]).flatten(1).unique(dim=0)) == 16
    assert len(source.sample(10, generator=draws())) == 0


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_give_equal_bits_whatever_the_global_generator_says(method: str) -> None:
    def images(seed: int, global_seed: int) -> Tensor:
        source = synthesizer(method, streams=Streams(seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            source.synthesize(None, rate=1.0)
            source.synthesize(tiny_student(), rate=1.0)
        return source.sample(16, generator=draws())

    assert torch.equal(images(0, 1), images(0, 2))
    assert not torch.equal(images(0, 1), images(1, 1))


@pytest.mark.parametrize("method", METHODS)
def test_a_restored_synthesizer_continues_bit_for_bit(method: str) -> None:
    teacher, student = tiny_teacher(batchnorm=True), tiny_student()
    one_streams, other_streams = Streams(0), Streams(0)
    one = synthesizer(method, teacher, streams=one_streams)
    one.synthesize(None, rate=1.0)
    one.synthesize(student, rate=1.0)
    one.sample(5, generator=draws())
    state, position = copy.deepcopy(one.state()), one_streams.state()
    one.synthesize(student, rate=1.0)  # must not move what was saved
    other = synthesizer(method, teacher, streams=other_streams)
    other.restore(state)
    other_streams.restore(position)
    other.synthesize(student, rate=1.0)
    assert len(other.state()["unseen"]) == 19
    assert torch.equal(one.sample(99, generator=draws()), other.sample(99, generator=draws()))


@pytest.mark.parametrize("method", METHODS)
def test_a_restored_synthesizer_does_not_share_its_tensors(method: str) -> None:
    teacher, student = tiny_teacher(batchnorm=True), tiny_student()
    one_streams, other_streams = Streams(0), Streams(0)
    one = synthesizer(method, teacher, streams=one_streams)
    one.synthesize(student, rate=1.0)
    before = copy.deepcopy(one.state())
    other = synthesizer(method, teacher, streams=other_streams)
    other.restore(one.state())
    other.synthesize(student, rate=1.0)
    assert_same(before, one.state())


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, its in zip(one, other, strict=True):
            assert_same(mine, its)
    else:
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("method", METHODS)
def test_more_steps_bring_the_targets_nearer(method: str) -> None:
    few, many = (synthesizer(method, steps=steps, shift=0).synthesize(None, rate=1.0) for steps in (1, 40))
    assert many["target"] < 0.8 * few["target"]


@pytest.mark.parametrize("method", METHODS)
def test_without_batchnorm_and_features_a_method_that_needs_none_goes_on(method: str) -> None:
    needs = config_of(method).method_options.needs
    teacher = tiny_teacher(batchnorm="batchnorm" in needs, features="features" in needs)
    terms = synthesizer(method, teacher).synthesize(tiny_student(), rate=1.0)
    assert ("bn" in terms) == ("batchnorm" in needs)
    assert all(torch.isfinite(value) for value in terms.values())
    assert "bn" in synthesizer(method, tiny_teacher(batchnorm=True)).synthesize(None, rate=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_feedback_comes_from_the_student_and_weighs_half_after_a_calm(method: str) -> None:
    teacher = tiny_teacher(batchnorm=True)

    def images(adv_weight: float, *, calms: int = 0) -> Tensor:
        source = synthesizer(method, teacher, adv_weight=adv_weight, adv_limit=100.0, keep="last")
        for _ in range(calms):
            source.calm()
        assert "adv" not in source.synthesize(None, rate=1.0)
        source.sample(8, generator=draws())
        assert "adv" in source.synthesize(nearly(teacher), rate=1.0)
        return source.sample(8, generator=draws())

    assert torch.equal(images(4.0, calms=2), images(1.0))
    assert not torch.equal(images(4.0, calms=2), images(4.0))


@pytest.mark.parametrize("method", METHODS)
def test_a_restart_drops_what_was_not_given(method: str) -> None:
    source = synthesizer(method)
    source.synthesize(None, rate=1.0)
    source.restart()
    assert len(source.sample(8, generator=draws())) == 0
    assert "target" in source.synthesize(tiny_student(), rate=1.0)


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_is_valid_and_keeps_the_images(method: str, preset: str) -> None:
    config = DistillConfig.model_validate({"method": method, "preset": preset})
    assert config.method_options.name == method
    assert config.memory in ("reservoir", "priority")
    assert config.training.replay_share > 0.5
    assert set(PRESETS[method]) == {"default", "paper"}
    if preset == "paper":
        assert (config.procedural.share, config.training.rate_warmup) == (0, 0)


@pytest.mark.parametrize("valid_range", [True, False])
def test_pixels_stay_in_the_valid_range_unless_told_not_to(valid_range: bool) -> None:
    source = synthesizer("deepinversion", valid_range=valid_range, learning_rate=1.0, steps=10)
    source.synthesize(None, rate=1.0)
    images = source.sample(8, generator=draws())
    assert (bool((images >= -1).all()) and bool((images <= 2).all())) == valid_range


def test_the_best_images_of_a_batch_are_not_worse_than_the_last() -> None:
    """With a rate far too large the last step is no good."""
    wild = {"learning_rate": 30.0, "decay": "none", "valid_range": False, "steps": 12, "shift": 0}
    teacher = tiny_teacher()
    confidence = {}
    for keep in ("best", "last"):
        source = synthesizer("deepinversion", teacher, keep=keep, targets="onehot", smoothness_weight=0.1, **wild)
        source.synthesize(None, rate=1.0)
        images = source.sample(8, generator=draws())
        confidence[keep] = float((images[:, :, 1:] - images[:, :, :-1]).abs().mean())
    assert confidence["best"] < confidence["last"]


def test_targets_are_balanced_and_soft_only_without_statistics() -> None:
    for batchnorm in (True, False):
        source = synthesizer("deepinversion", tiny_teacher(batchnorm=batchnorm))
        targets = source._targets(200)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(200))
        assert (targets.amax(dim=1) == 1).all() == batchnorm
        if batchnorm:
            assert targets.sum(dim=0).tolist() == [200 / CLASSES] * CLASSES


def small_run(method: str) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "method": method,
            "method_options": {"warmup_rounds": 2, **SMALL[method], "adv_weight": 0.5},
            "budget": {"steps": 16},
            "training": {"batch_size": 16, "updates_per_round": 4, "replays_per_round": 16},
            "procedural": {"share": 0.0},
            "steadiness": {"probe_size": 32, "audit_size": 16, "evaluations": 4},
        }
    )


def run(method: str, **more: Any) -> Distilled:
    return distill(tiny_teacher(batchnorm=True), tiny_student(), small_run(method), **more)


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_equals_the_uninterrupted_one(method: str, tmp_path: Path) -> None:
    rounds: list[Update] = []

    def stop_in_the_fourth(update: Update) -> bool:
        rounds.extend([update] if update.kind == "progress" else [])
        return len(rounds) >= 4

    whole = run(method, on_step=lambda _update: False)
    checkpoints = CheckpointWriter(tmp_path, every_seconds=3600)
    with pytest.raises(Stopped):
        run(method, on_step=stop_in_the_fourth, checkpoints=checkpoints)
    resumed = run(method, on_step=lambda _update: False, resume_from=written(tmp_path)[-1])
    assert_same(dict(whole.student.state_dict()), dict(resumed.student.state_dict()))
    assert resumed.curve == whole.curve
    assert resumed.images_synthesized == whole.images_synthesized


@pytest.mark.parametrize(("method", "made"), [("sttss", 2 * 8), ("deepinversion", 4 * 8)])
def test_nothing_is_made_after_the_warm_up_where_the_images_come_first(method: str, made: int) -> None:
    state = build_run(tiny_teacher(), tiny_student(), small_run(method))
    for _ in range(4):
        play_round(state)
    assert (state.counters.images_synthesized, state.counters.steps) == (made, 8)


def test_a_student_without_a_linear_layer_is_refused_by_name() -> None:
    source = synthesizer("csd")
    source.synthesize(None, rate=1.0)
    with pytest.raises(RequirementError, match="linear layer"):
        source.synthesize(nn.Sequential(tiny_network()), rate=1.0)


@pytest.mark.parametrize(("group", "count"), [("rotations", 4), ("flips", 2), ("none", 1)])
def test_transforms_are_a_group_that_begins_with_the_identity(group: str, count: int) -> None:
    images = torch.rand((2, 3, 5, 5), generator=draws())
    assert num_transforms(group, (3, 5, 5)) == count
    turned = [transformed(images, group, index) for index in range(count)]
    assert torch.equal(turned[0], images)
    assert len(torch.stack(turned).flatten(1).unique(dim=0)) == count
    again = [transformed(image, group, 1 % count) for image in turned]
    assert all(any(torch.equal(image, one) for one in turned) for image in again)
    assert num_transforms("rotations", (3, 5, 6)) == 2


def test_the_probe_learns_class_and_transform() -> None:
    student = tiny_student().eval()
    losses = {}
    for steps in (1, 150):
        source = synthesizer("csd", probe_steps=steps, transforms="flips", probe_batch_size=32, steps=20)
        source.synthesize(None, rate=1.0)
        losses[steps] = source.synthesize(student, rate=1.0)["probe"]
    assert losses[150] < losses[1] - 0.2


def test_a_crop_of_everything_is_the_image_and_a_mirror_mirrors_it() -> None:
    images = torch.rand((4, 1, 6, 8), generator=draws())
    torch.testing.assert_close(cropped(images, 1.0, mirror=0.0, generator=draws()), images)
    torch.testing.assert_close(cropped(images, 1.0, mirror=1.0, generator=draws()), images.flip(3))
    part = cropped(images, 0.1, mirror=0.0, generator=draws())
    assert part.shape == images.shape
    assert not torch.allclose(part, images, atol=0.1)


def test_the_contrast_keeps_the_newest_features_only() -> None:
    source = synthesizer("cmi", tiny_teacher(batchnorm=True))
    for _ in range(3):
        source.synthesize(None, rate=1.0)
    assert source.state()["features"].shape == (20, 2, 12)  # twelve channels before the only BatchNorm


def test_features_are_correlated_as_the_weights_that_make_them() -> None:
    teacher = tiny_teacher()
    layers = [nn.Conv2d(1, 3, 2), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, CLASSES)]
    assert feature_weights(layers, layers[-1]).shape == (4, 5)
    assert feature_weights([layers[-1]], layers[-1]).shape == (4, CLASSES)
    assert isinstance(teacher.classifier, nn.Linear)
    weights = layers[1].weight.detach().numpy().astype(np.float64)
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    directions = torch.from_numpy(unit).float()
    drawn = correlated_normal(directions, 60_000, variance=1.5, generator=draws(), device=CPU).numpy()
    np.testing.assert_allclose(np.cov(drawn.T), 1.5 * unit @ unit.T, atol=0.05)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.03)


@pytest.mark.parametrize("rectified", [True, False])
def test_targets_of_sttss_are_what_the_classifier_says_of_those_features(rectified: bool) -> None:
    teacher = tiny_teacher()
    assert isinstance(teacher.classifier, nn.Linear)
    source = synthesizer("sttss", teacher, rectified=rectified, temperature=2.0)
    unit = nn.functional.normalize(feature_weights(teacher.network.modules(), teacher.classifier), dim=1)
    noise = torch.randn((8, unit.shape[1]), generator=Streams(0)["images"])
    features = 1.5**0.5 * noise @ unit.T
    features = features.clamp(min=0) if rectified else features
    torch.testing.assert_close(source._targets(8), (teacher.classifier(features).detach() / 2).softmax(dim=1))


def test_past_statistics_are_mixed_in_and_follow_with_their_own_decay() -> None:
    past = PastStatistics(0.9)
    first, second, third = (torch.rand((4, 5), generator=draws(seed)) for seed in range(3))
    assert torch.equal(past.blended([tuple(first)])[0][0], first[0])
    past.take_in()
    blended = past.blended([tuple(second)])[0]
    torch.testing.assert_close(blended[0], 0.9 * first[0] + 0.1 * second[0])
    torch.testing.assert_close(blended[1], 0.9 * first[1] + 0.1 * second[1])
    assert torch.equal(torch.stack(blended[2:]), second[2:])
    past.take_in()
    expected = 0.9 * (0.9 * first[1] + 0.1 * second[1]) + 0.1 * third[1]
    torch.testing.assert_close(past.blended([tuple(third)])[0][1], expected)
    assert torch.equal(PastStatistics(0.0).blended([tuple(second)])[0][0], second[0])


def test_the_start_of_fast_follows_the_sum_of_all_gradients() -> None:
    source = synthesizer("fast", learning_rate=1e-9, code_learning_rate=1e-9, shift=0)
    assert isinstance(source, Fast)
    before = [parameter.detach().clone() for parameter in source._start.parameters()]
    canvas = source._canvas()
    targets = source._targets(8)
    for _ in range(2):
        loss = nn.functional.cross_entropy(source._teacher(canvas.images()), targets)
        gradients = torch.autograd.grad(loss, canvas.unknowns[0][0])
        for parameter, gradient in zip(canvas.unknowns[0][0], gradients, strict=True):
            parameter.grad = gradient
        canvas.project()
    for learnt, gradient in zip(source._start.parameters(), gradients, strict=True):
        torch.testing.assert_close(learnt.grad, 2 * gradient)
    source._finish(canvas.images().detach(), targets)
    moved = [learnt.detach() - old for learnt, old in zip(source._start.parameters(), before, strict=True)]
    large = gradients[0].abs() > 1e-5
    torch.testing.assert_close(moved[0][large], -0.02 * gradients[0].sign()[large], rtol=0.01, atol=1e-6)


def test_nayer_draws_another_layer_for_every_run_of_classes_and_another_generator_in_the_end() -> None:
    source = synthesizer("nayer")
    assert isinstance(source, Nayer)
    classes = source._targets(8).argmax(dim=1)
    canvas = source._canvas()
    images = canvas.images()
    assert sorted(classes[:CLASSES].tolist()) == list(range(CLASSES))
    again = [(classes == label).nonzero().flatten() for label in range(CLASSES)]
    assert all(not torch.allclose(images[one], images[other], atol=1e-3) for one, other in again)
    network = source._network
    source._canvas()
    assert source._network is network
    source._canvas()
    assert source._network is not network


def test_rare_classes_weigh_more() -> None:
    made = torch.tensor([0.0, 2.0, 4.0])
    np.testing.assert_allclose(class_rarity(made, exponent=2.0), [(3 / n) ** 2 for n in (1, 3, 5)], rtol=1e-6)
    np.testing.assert_allclose(class_rarity(made, exponent=0.0), [1, 1, 1])
