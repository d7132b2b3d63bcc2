"""Rules for every method with a generator, and for the menu. `test_image_methods` has those for image methods."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.memories import build_memory
from dfkd_core.methods import Synthesizer, build_synthesizer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.registry import MEMORIES, METHODS, MemoryName, MethodName, PresetName
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.tiny import SHAPE, tiny_network, tiny_teacher

CPU = torch.device("cpu")
SMALL = {"latent_dim": 6, "width": 4, "batch_size": 12, "steps": 3, "iterations": 3}

GENERATORS = [
    method
    for method in get_args(MethodName)
    if "generator" in DistillConfig.model_validate({"method": method}).method_options.gives
]

every_method = pytest.mark.parametrize("method", GENERATORS)


def small_config(method: str, **changes: Any) -> DistillConfig:
    """The method's defaults with the sizes of `SMALL`, as far as it has them."""
    fields = type(DistillConfig.model_validate({"method": method}).method_options).model_fields
    options = {name: value for name, value in SMALL.items() if name in fields}
    return DistillConfig.model_validate({"method": method, "method_options": {**options, **changes}})


def made(method: str, teacher: Teacher, streams: Streams, **changes: Any) -> Synthesizer:
    return build_synthesizer(small_config(method, **changes), teacher, streams=streams, device=CPU)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors(tree: Any) -> Iterator[Tensor]:
    """Every tensor in a state."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(branch)


def images_after(source: Synthesizer, student: nn.Module, *, updates: int) -> Tensor:
    for _ in range(updates):
        source.synthesize(student, rate=1.0)
    return source.sample(9, generator=draws())


def test_the_registry_has_every_name_of_the_menu() -> None:
    assert list(METHODS) == sorted(get_args(MethodName))
    assert list(MEMORIES) == sorted(get_args(MemoryName))
    for options in METHODS.values():
        assert "default" in options.presets
    for named in (*METHODS.values(), *MEMORIES.values()):
        assert set(named.presets) <= set(get_args(PresetName))


@every_method
def test_an_update_leaves_the_student_as_it_was_and_the_teacher_without_gradients(method: str) -> None:
    teacher, student = tiny_teacher(batchnorm=True), tiny_network(batchnorm=True).train()
    before = [buffer.clone() for buffer in student.buffers()]
    made(method, teacher, Streams(0)).synthesize(student, rate=1.0)
    assert student.training
    assert all(torch.equal(one, other) for one, other in zip(before, student.buffers(), strict=True))
    assert all(parameter.grad is None for network in (student, teacher) for parameter in network.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in teacher.modules())


@every_method
def test_losses_and_samples_are_detached_and_have_the_right_shape(method: str) -> None:
    source = made(method, tiny_teacher(batchnorm=True), Streams(0))
    terms = source.synthesize(tiny_network(), rate=1.0)
    images = source.sample(9, generator=draws())
    assert terms
    assert all(value.shape == () and not value.requires_grad for value in terms.values())
    assert images.shape == (9, *SHAPE)
    assert not images.requires_grad
    assert torch.isfinite(images).all()


@every_method
def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(method: str) -> None:
    teacher, student = tiny_teacher(batchnorm=True), tiny_network()
    one, same, other = (images_after(made(method, teacher, Streams(seed)), student, updates=2) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@every_method
def test_a_restored_method_continues_bit_for_bit(method: str) -> None:
    teacher, student = tiny_teacher(batchnorm=True), tiny_network()
    streams, later = Streams(3), Streams(3)
    source = made(method, teacher, streams)
    source.synthesize(student, rate=1.0)
    twin = made(method, teacher, later)
    twin.restore(source.state())
    later.restore(streams.state())
    apart = images_after(twin, student, updates=2)  # must not move what `source` holds
    assert torch.equal(images_after(source, student, updates=2), apart)


@every_method
def test_an_update_learns_with_a_student_and_a_restart_forgets(method: str) -> None:
    teacher = tiny_teacher(batchnorm=True)
    source = made(method, teacher, Streams(0))
    before = [tensor.clone() for tensor in tensors(source.state())]
    source.synthesize(tiny_network(), rate=1.0)
    after = list(tensors(source.state()))
    assert len(before) != len(after) or any(
        not torch.equal(one, other) for one, other in zip(before, after, strict=True)
    )
    source.synthesize(None, rate=1.0)  # a warm-up may teach nothing, but is always allowed
    source.restart()
    source.back_off()
    source.synthesize(tiny_network(), rate=1.0)


@every_method
def test_what_a_method_needs_is_something_that_teachers_offer(method: str) -> None:
    options = small_config(method).method_options
    assert options.needs <= tiny_teacher(batchnorm=True).offers
    assert options.gives <= {"generator"}
    source = made(method, tiny_teacher(batchnorm=True), Streams(0))
    assert source.generator is not None
    if not options.needs:
        plain = made(method, tiny_teacher(batchnorm=False, features=False), Streams(0))
        assert plain.synthesize(tiny_network(), rate=1.0)


@every_method
@pytest.mark.parametrize("preset", ["default", "paper-reconstructed"])
def test_every_preset_is_valid_and_its_memory_can_be_built(method: str, preset: str) -> None:
    small = {"width": 4, "latent_dim": 6}
    config = DistillConfig.model_validate({"method": method, "preset": preset})
    assert config.method_options.name == method
    fields = type(config.memory_options).model_fields
    options = {name: value for name, value in small.items() if name in fields}
    config = DistillConfig.model_validate({"method": method, "preset": preset, "memory_options": options})
    memory = build_memory(config, tiny_teacher(), streams=Streams(0), device=CPU)
    memory.on_generator_update(made(method, tiny_teacher(batchnorm=True), Streams(0)))
    assert config.memory_options.needs_of_method <= config.method_options.gives


@every_method
def test_a_published_preset_has_nothing_of_ours(method: str) -> None:
    config = DistillConfig.model_validate({"method": method, "preset": "paper-reconstructed"})
    assert config.procedural.share == 0
    assert not config.training.augmentation.active
    assert not config.training.valid_range
    assert config.training.rate_warmup == 0
    assert config.steadiness.consolidation == (1 if method == "rdskd" else 0)
