from typing import Any

import pytest
import torch

from dfkd_core.errors import CheckpointMismatch
from dfkd_core.images.batch import Batch
from dfkd_core.images.image_rows import LeftOut
from dfkd_core.images.procedural import ProceduralBank
from dfkd_core.planning import sizes
from dfkd_core.spec.config import Procedural
from tests.dfkd_core.tiny import CLASSES, SHAPE, tiny_teacher

CPU = torch.device("cpu")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_bank(**options: Any) -> ProceduralBank:
    values = Procedural.model_validate({"images_per_round": 16, "capacity": 200, **options})
    return ProceduralBank(values, tiny_teacher(), capacity=values.capacity, device=CPU)


def test_new_images_lie_in_the_valid_range_and_have_the_teachers_labels() -> None:
    bank, teacher = a_bank(), tiny_teacher()
    batch = bank.draw(50, generator=draws())
    low, high = teacher.input_space.bounds()
    assert (batch.images >= low).all()
    assert (batch.images <= high).all()
    torch.testing.assert_close(batch.teacher_logits, teacher.label(batch.images))


def test_refined_images_have_the_labels_that_the_teacher_gives_them_afterwards() -> None:
    bank, teacher = a_bank(), tiny_teacher()
    batch = bank.refined(20, generator=draws())
    assert not torch.equal(batch.images, bank.draw(20, generator=draws()).images)
    torch.testing.assert_close(batch.teacher_logits, teacher.label(batch.images))


def test_the_bank_keeps_its_capacity_and_samples_classes_equally() -> None:
    bank = a_bank(capacity=40)
    for seed in range(20):
        bank.add(bank.draw(100, generator=draws(seed)), generator=draws(seed))
    assert len(bank) <= 40
    classes = bank.sample(4000, generator=draws()).teacher_logits.argmax(dim=1)
    counts = torch.bincount(classes, minlength=CLASSES)
    present = counts[counts > 0]
    assert len(present) > 1
    assert present.min() > 0.8 * present.double().mean()


def labelled(confidences: list[float], repeats: int) -> Batch:
    """Images whose first pixel tells which confidence in class 0 their logits stand for."""
    kinds = torch.arange(len(confidences)).repeat(repeats)
    p = torch.tensor(confidences)[kinds]
    rest = ((1 - p) / (CLASSES - 1)).unsqueeze(1).expand(-1, CLASSES - 1)
    images = torch.zeros((len(kinds), *SHAPE))
    images[:, 0, 0, 0] = kinds / 100
    return Batch(images=images, teacher_logits=torch.cat([p.unsqueeze(1), rest], dim=1).log())


@pytest.mark.parametrize(("sharpness", "ratio"), [(0.0, 1.0), (1.0, 2.0), (3.0, 8.0)])
def test_images_are_kept_in_proportion_to_their_weight(sharpness: float, ratio: float) -> None:
    """With few places for many images the first draws decide, whose odds are the weights."""
    bank = a_bank(capacity=100 * CLASSES, sharpness=sharpness)
    for seed in range(20):
        bank.add(labelled([0.8, 0.4], 500), generator=draws(seed))
    pixels = bank._images[torch.arange(100)][:, 0, 0, 0]  # of the first class
    sure, unsure = (int((pixels == pixel).sum()) for pixel in pixels.unique())
    assert sure + unsure == 100
    assert sure / 100 == pytest.approx(ratio / (1 + ratio), abs=0.15)


def test_a_bank_that_is_not_full_keeps_everything() -> None:
    bank = a_bank(capacity=CLASSES * 300)
    bank.add(labelled([0.9, 0.3], 50), generator=draws())
    bank.add(labelled([0.9, 0.3], 50), generator=draws(1))
    assert len(bank) == 200


@pytest.mark.parametrize("places", [10, CLASSES - 1])
def test_the_bank_never_takes_more_bytes_than_said(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "LARGE_PLACES", 1)
    monkeypatch.setattr(sizes, "BANK_BYTES", places * (64 + 2 * CLASSES))  # images of 8 x 8
    bank = a_bank(capacity=1_000_000)
    bank.add(bank.draw(300, generator=draws()), generator=draws())
    assert 0 < len(bank) <= places
    assert len(bank._images) <= places


def test_a_restored_bank_gives_the_same_images() -> None:
    bank, other = a_bank(), a_bank()
    bank.add(bank.draw(60, generator=draws()), generator=draws())
    other.restore(bank.state())
    one, same = (source.sample(9, generator=draws(5)) for source in (bank, other))
    assert one.images.shape == (9, *SHAPE)
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.teacher_logits, same.teacher_logits)


def a_bank_of_two_chunks(**options: Any) -> ProceduralBank:
    """A bank that is full, so that images of both chunks have displaced others. The first 8 of each are held out."""
    bank, generator = a_bank(capacity=60, **options), draws()
    for first in (0, 64):
        bank.add(bank.draw(64, generator=generator)[8:], generator=draws(1), first=first + 8)
    return bank


@pytest.mark.parametrize("kinds", [["shapes"], ["scenes"], ["marks"], ["figures"], ["marks", "shapes", "scenes"]])
def test_images_that_were_left_out_are_drawn_again(kinds: list[str]) -> None:
    bank, other, generator = a_bank_of_two_chunks(kinds=kinds), a_bank(capacity=60, kinds=kinds), draws()
    state = bank.state(leave_out=True)
    assert isinstance(state["images"], LeftOut)
    other.restore(state)
    assert other.is_incomplete
    assert other.state()["images"] == state["images"]  # while it lacks them
    for first in (0, 64):
        other.draw_again(first, 64, generator=generator)
    other.complete()
    assert not other.is_incomplete
    assert torch.equal(other.state()["images"], bank.state()["images"])
    one, same = (each.sample(32, generator=draws(2)) for each in (bank, other))
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.teacher_logits, same.teacher_logits)


def test_other_images_than_those_that_were_left_out_are_refused() -> None:
    bank, generator = a_bank(capacity=60), draws(7)
    bank.restore(a_bank_of_two_chunks().state(leave_out=True))
    for first in (0, 64):
        bank.draw_again(first, 64, generator=generator)
    with pytest.raises(CheckpointMismatch, match="drawn differently"):
        bank.complete()


def test_images_that_cannot_be_drawn_again_are_stored() -> None:
    bank = a_bank()
    bank.add(bank.draw(16, generator=draws()), generator=draws(1), first=0)
    bank.add(bank.refined(16, generator=draws()), generator=draws(1))
    assert len(bank.state(leave_out=True)["images"]) == len(bank) == 32
    assert len(a_bank().state(leave_out=True)["images"]) == 0
