"""The contract that every method keeps which optimises its images, and what each of them does beside it."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.config import DistillConfig
from dfkd_core.methods import Synthesizer, build_synthesizer
from dfkd_core.options import PRESETS
from dfkd_core.streams import Streams
from dfkd_core.teachers.teacher import Teacher
from tests.dfkd_core.tiny import CLASSES, SHAPE, tiny_network, tiny_teacher

CPU = torch.device("cpu")
PIXELS = {"batch_size": 8, "steps": 3, "shift": 1}
SMALL: dict[str, dict[str, Any]] = {
    "deepinversion": {**PIXELS, "l2_weight": 0.01},
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
    teacher, student = tiny_teacher(batchnorm=True), tiny_student()

    def images(**changes: Any) -> Tensor:
        source = synthesizer(method, teacher, **changes)
        if changes.pop("adv_weight", None) == 4.0:
            source.calm()
        assert ("adv" in source.synthesize(student, rate=1.0)) == (changes.get("adv_weight", 1) != 0)
        return source.sample(8, generator=draws())

    calmed = images(adv_weight=4.0)
    assert torch.equal(calmed, images(adv_weight=2.0))
    assert not torch.equal(calmed, images(adv_weight=1.0))


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
