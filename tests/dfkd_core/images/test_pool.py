import pytest
import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.images.pool import ENCODED_AT_A_TIME, Pool
from dfkd_core.images.reservoir import ClassReservoir, PixelCodec

CODEC = PixelCodec(torch.tensor([[[[-1.0]]]]), torch.tensor([[[[2.0]]]]))


def a_pool(rounds: int) -> Pool:
    return Pool(rounds, CODEC, device=torch.device("cpu"))


def images_of_8_bits(count: int, seed: int) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    levels = torch.randint(256, (count, 1, 4, 4), generator=draws, dtype=torch.uint8)
    return Batch(CODEC.decode(levels), torch.randn((count, 3), generator=draws))


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_drawn_images_are_exactly_those_that_were_added(change: float) -> None:
    batches = [images_of_8_bits(5 + seed, seed) for seed in range(3)]
    batches = [Batch(batch.images + change, batch.teacher_logits) for batch in batches]
    pool = a_pool(3)
    for batch in batches:
        pool.add(batch)
    whole, draws = Batch.join(*batches), torch.Generator().manual_seed(9)
    chosen = torch.randint(18, (40,), generator=torch.Generator().manual_seed(9))
    found = pool.sample(40, generator=draws)
    assert torch.equal(found.images, whole.images[chosen])
    assert torch.equal(found.teacher_logits, whole.teacher_logits[chosen])
    stored = {images.dtype for images, _ in pool.state()}
    assert stored == {torch.uint8 if change == 0 else torch.float32}


def test_only_the_last_rounds_are_kept() -> None:
    pool, other = a_pool(2), a_pool(2)
    for seed in range(3):
        pool.add(images_of_8_bits(4, seed))
    assert len(pool) == 8
    assert torch.equal(pool.newest.images, images_of_8_bits(4, 2).images)
    other.restore(pool.state())
    one, same = (kept.sample(9, generator=torch.Generator().manual_seed(1)) for kept in (pool, other))
    assert torch.equal(one.images, same.images)


class WatchedCodec(PixelCodec):
    """Notes how many images it decodes at a time."""

    most = 0

    def decode(self, stored: Tensor) -> Tensor:
        WatchedCodec.most = max(WatchedCodec.most, len(stored))
        return super().decode(stored)


def test_a_large_replay_is_decoded_in_parts_and_kept_as_it_was_drawn() -> None:
    count = 3 * ENCODED_AT_A_TIME + 5
    bank = ClassReservoir(90, num_classes=3, shape=(1, 4, 4), codec=WatchedCodec(CODEC.low, CODEC.high))
    bank.add(images_of_8_bits(300, 0), generator=torch.Generator().manual_seed(1))
    drawn = bank.sample(count, generator=torch.Generator().manual_seed(2))
    replayed = bank.sample_stored(count, generator=torch.Generator().manual_seed(2), device=torch.device("cpu"))
    WatchedCodec.most, pool = 0, a_pool(1)
    pool.add(replayed)
    assert WatchedCodec.most == ENCODED_AT_A_TIME
    assert torch.equal(pool.newest.images, drawn.images)
    assert torch.equal(pool.newest.teacher_logits, drawn.teacher_logits)
    ((images, _),) = pool.state()
    assert images.dtype == torch.uint8


def test_one_inexact_image_far_behind_keeps_the_whole_batch_in_floats() -> None:
    batch = images_of_8_bits(2 * ENCODED_AT_A_TIME + 1, 0)
    batch.images[-1] += 1e-3
    pool = a_pool(1)
    pool.add(batch)
    assert torch.equal(pool.newest.images, batch.images)
