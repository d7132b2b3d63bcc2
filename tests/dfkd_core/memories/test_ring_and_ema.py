"""The two memories that know their method: the ring of the newest batches and the average of the generator."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.memories.ema import EmaMemory
from dfkd_core.memories.ring import RingMemory
from dfkd_core.methods.deepinversion import DeepInversion
from dfkd_core.methods.mad import Mad
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.memories.ema import EmaOptions
from dfkd_core.options.memories.ring import RingOptions
from dfkd_core.options.methods.deepinversion import DeepInversionOptions
from dfkd_core.options.methods.mad import MadOptions
from dfkd_core.rng import Streams
from tests.dfkd_core.memories.test_memories import draws, fresh
from tests.dfkd_core.tiny import tiny_teacher

CPU = torch.device("cpu")


def mad(teacher: Teacher, **changes: Any) -> Mad:
    small = {"latent_dim": 5, "width": 4, "batch_size": 12, "learning_rate": 0.02}
    return Mad(MadOptions.model_validate({**small, **changes}), teacher, streams=Streams(0), device=CPU)


def followed(decay: float, *, updates: int = 3, **changes: Any) -> tuple[EmaMemory, Mad, list[dict[str, Tensor]]]:
    """A memory that followed a generator, the generator, and its weights from the start on."""
    teacher = tiny_teacher()
    source = mad(teacher, **changes)
    memory = EmaMemory(EmaOptions(decay=decay), teacher, streams=Streams(0), device=CPU)
    memory.on_generator_update(source)
    path = [{name: value.clone() for name, value in source.network.state_dict().items()}]
    for _ in range(updates):
        source.synthesize(None, rate=1.0)
        memory.on_generator_update(source)
        path.append({name: value.clone() for name, value in source.network.state_dict().items()})
    return memory, source, path


def learnt(memory: EmaMemory) -> dict[str, Tensor]:
    assert memory.network is not None
    return {name: value.detach().clone() for name, value in memory.network.named_parameters()}


@pytest.mark.parametrize("conditioning", ["uncond", "sum", "cat"])
def test_an_average_without_decay_is_the_generator_itself(conditioning: str) -> None:
    memory, source, path = followed(0.0, conditioning=conditioning)
    assert all(torch.equal(value, path[-1][name]) for name, value in learnt(memory).items())
    replayed = memory.replay(12, generator=draws())
    assert replayed is not None
    assert torch.equal(replayed.images, source.sample(12, generator=draws()))


def test_an_average_with_decay_1_stays_at_the_first_generator() -> None:
    memory, _, path = followed(1.0)
    assert not torch.equal(path[0]["conv1.weight"], path[-1]["conv1.weight"])
    assert all(torch.equal(value, path[0][name]) for name, value in learnt(memory).items())


def test_the_average_is_the_exponential_one_and_buffers_are_copied() -> None:
    memory, source, path = followed(0.9)
    expected = path[0]["project.weight"]
    for weights in path[1:]:
        expected = 0.9 * expected + 0.1 * weights["project.weight"]
    torch.testing.assert_close(learnt(memory)["project.weight"], expected)
    assert memory.network is not None
    pairs = zip(memory.network.buffers(), source.network.buffers(), strict=True)
    assert all(torch.equal(kept, current) for kept, current in pairs)


def test_the_average_of_a_constant_generator_is_constant() -> None:
    memory, source, path = followed(0.7, updates=0)
    for _ in range(5):
        memory.on_generator_update(source)
    for name, value in learnt(memory).items():
        torch.testing.assert_close(value, path[0][name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_replaying_an_average_moves_no_buffer_and_is_repeatable(spectral_norm: bool) -> None:
    memory, _, _ = followed(0.9, spectral_norm=spectral_norm)
    assert memory.network is not None
    before = [buffer.clone() for buffer in memory.network.buffers()]
    one, other = (memory.replay(7, generator=draws()) for _ in range(2))
    assert one is not None
    assert other is not None
    assert len(one) == 7
    assert torch.equal(one.images, other.images)
    assert not one.images.requires_grad
    assert all(torch.equal(kept, now) for kept, now in zip(before, memory.network.buffers(), strict=True))
    assert memory.replay(1, generator=draws()) is not None


def test_an_averaged_generator_takes_the_bytes_of_the_generator_and_replays_nothing_unseen() -> None:
    teacher = tiny_teacher()
    memory = EmaMemory(EmaOptions(), teacher, streams=Streams(0), device=CPU)
    assert memory.num_bytes == 0
    assert memory.replay(4, generator=draws()) is None
    source = mad(teacher)
    memory.on_generator_update(source)
    kept = [*source.network.parameters(), *source.network.buffers()]
    assert memory.num_bytes == sum(tensor.numel() * tensor.element_size() for tensor in kept)
    assert memory.remember(fresh(teacher)) == {}


def test_an_average_outlives_its_generator() -> None:
    memory, _, _ = followed(0.5)
    before = learnt(memory)
    successor = DeepInversion(DeepInversionOptions(), tiny_teacher(), streams=Streams(0), device=CPU)
    memory.on_generator_update(successor)
    assert all(torch.equal(value, before[name]) for name, value in learnt(memory).items())
    with pytest.raises(TypeError, match="no generator"):
        EmaMemory(EmaOptions(), tiny_teacher(), streams=Streams(0), device=CPU).on_generator_update(successor)


def ring(teacher: Teacher, **changes: Any) -> RingMemory:
    small = {"slots": 3, "slot_images": 4, "push_rounds": 2, "first_push_rounds": 2, "storage": "float32"}
    options = RingOptions.model_validate({**small, **changes})
    return RingMemory(options, teacher, streams=Streams(0), device=CPU)


def told(teacher: Teacher, value: float, count: int = 6) -> Batch:
    images = torch.full((count, 1, 8, 8), value)
    return Batch(images=images, teacher_logits=teacher.label(images))


def contents(memory: RingMemory) -> set[float]:
    replayed = memory.replay(400, generator=draws())
    assert replayed is not None
    return set(replayed.images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("draw", ["slot", "image"])
def test_a_ring_keeps_the_newest_batches(draw: str) -> None:
    teacher = tiny_teacher()
    memory = ring(teacher, draw=draw)
    memory.remember(told(teacher, 1.0))
    assert memory.replay(4, generator=draws()) is None  # the first push is in the second round
    for value in (2.0, 3.0, 4.0, 5.0, 6.0):
        memory.remember(told(teacher, value))
    assert contents(memory) == {2.0, 4.0, 6.0}
    for value in (7.0, 8.0):
        memory.remember(told(teacher, value))
    assert contents(memory) == {4.0, 6.0, 8.0}


def test_a_ring_replays_whole_batches_with_their_logits() -> None:
    teacher = tiny_teacher()
    memory = ring(teacher, push_rounds=1, first_push_rounds=1)
    shown = [fresh(teacher, 6, seed=seed) for seed in range(3)]
    for batch in shown:
        memory.remember(batch)
    replayed = memory.replay(10, generator=draws())
    assert replayed is not None
    assert len(replayed) == 10
    first = replayed.images[:4]
    assert any(torch.equal(first, batch.images[:4]) for batch in shown)
    torch.testing.assert_close(replayed.teacher_logits, teacher.label(replayed.images))


def test_a_ring_draws_each_image_equally_often_even_of_slots_that_are_not_full() -> None:
    teacher = tiny_teacher()
    memory = ring(teacher, push_rounds=1, first_push_rounds=1, draw="image")
    memory.remember(told(teacher, 1.0, count=1))
    memory.remember(told(teacher, 2.0, count=3))
    replayed = memory.replay(4000, generator=draws())
    assert replayed is not None
    assert (replayed.images[:, 0, 0, 0] == 1).double().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("storage", "width"), [("float32", 4), ("float16", 2), ("uint8", 1)])
def test_ring_bytes_count_every_slot(storage: str, width: int) -> None:
    assert ring(tiny_teacher(), storage=storage).num_bytes == 3 * 4 * (64 * width + 4 * 4)


def test_a_restored_ring_goes_on_where_it_was() -> None:
    teacher = tiny_teacher()
    one, other = ring(teacher), ring(teacher)
    for value in (1.0, 2.0, 3.0):
        one.remember(told(teacher, value))
    other.restore(one.state())
    for memory in (one, other):
        memory.remember(told(teacher, 9.0))
    assert contents(one) == contents(other) == {2.0, 9.0}
