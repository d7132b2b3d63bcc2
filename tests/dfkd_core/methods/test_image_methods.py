"""The contract of all methods that optimise their images."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.errors import Stopped
from dfkd_core.loop.checkpoint import CheckpointWriter, written
from dfkd_core.loop.distill import Distilled, distill
from dfkd_core.loop.round import train_round
from dfkd_core.loop.state import build_run
from dfkd_core.methods import Synthesizer, build_synthesizer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.progress import Update
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.tiny import SHAPE, tiny_network, tiny_teacher

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
    "zskd": {**PIXELS},
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
            source.back_off()
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


@pytest.mark.parametrize("preset", ["default", "paper-reconstructed"])
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_is_valid_and_keeps_the_images(method: str, preset: str) -> None:
    config = DistillConfig.model_validate({"method": method, "preset": preset})
    assert config.method_options.name == method
    assert config.memory in ("reservoir", "priority")
    assert config.training.replay_share > 0.5
    if preset != "default":
        assert (config.procedural.share, config.training.rate_warmup) == (0, 0)


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


@pytest.mark.slow  # every commit stops these runs at every step: tests/dfkd_core/loop/test_interruption.py
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


@pytest.mark.parametrize(("method", "made"), [("sttss", 2 * 8), ("zskd", 2 * 8), ("deepinversion", 4 * 8)])
def test_nothing_is_made_after_the_warm_up_where_the_images_come_first(method: str, made: int) -> None:
    state = build_run(tiny_teacher(), tiny_student(), small_run(method))
    for _ in range(4):
        train_round(state)
    assert (state.counters.images_synthesized, state.counters.steps) == (made, 8)
