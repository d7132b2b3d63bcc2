import pytest
import torch

from dfkd_core.images.batch import Batch
from dfkd_core.loop.collapse_guard import PATIENCE, CollapseGuard, class_entropy, diversity


def batch(*, spread: float, classes: int = 10) -> Batch:
    images = torch.randn((40, 1, 4, 4), generator=torch.Generator().manual_seed(0)) * spread
    logits = torch.nn.functional.one_hot(torch.arange(40) % classes, 10).float() * 50
    return Batch(images=images, teacher_logits=logits)


def guard() -> CollapseGuard:
    return CollapseGuard(min_class_entropy=0.2, min_diversity=0.2)


def test_sound_batches_pass() -> None:
    watch = guard()
    assert [watch.check(batch(spread=1.0)) for _ in range(10)] == [None] * 10
    assert watch.healthy


@pytest.mark.parametrize(("bad", "reason"), [({"spread": 0.05}, "distance"), ({"spread": 1.0, "classes": 1}, "class")])
def test_collapse_is_told_after_some_patience(bad: dict[str, float], reason: str) -> None:
    watch = guard()
    watch.check(batch(spread=1.0))
    told = [watch.check(batch(**bad)) for _ in range(PATIENCE)]
    assert told[:-1] == [None] * (PATIENCE - 1)
    assert reason in (told[-1] or "")
    assert not watch.healthy


def test_a_single_bad_batch_is_forgiven() -> None:
    watch = guard()
    for spread in (1.0, 0.05, 1.0, 0.05, 1.0, 0.05):
        assert watch.check(batch(spread=spread)) is None


def test_a_restored_guard_remembers() -> None:
    one, other = guard(), guard()
    for spread in (1.0, 0.05, 0.05):
        one.check(batch(spread=spread))
    other.restore(one.state())
    assert other.check(batch(spread=0.05)) is not None


def test_the_two_signs() -> None:
    assert class_entropy(batch(spread=1.0).teacher_logits) == pytest.approx(1)
    assert class_entropy(batch(spread=1.0, classes=1).teacher_logits) == pytest.approx(0, abs=1e-6)
    assert diversity(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)) == 2
