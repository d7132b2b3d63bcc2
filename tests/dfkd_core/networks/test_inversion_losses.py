"""Every loss of image inversion against a plain NumPy formula written from its equation."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dfkd_core.networks import inversion_losses
from tests.dfkd_core.networks.test_losses import draw, softmax


@pytest.fixture
def teacher() -> Tensor:
    return draw(6, 5, seed=1)


@pytest.fixture
def student() -> Tensor:
    return draw(6, 5, seed=2)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_soft_cross_entropy(teacher: Tensor, student: Tensor, temperature: float) -> None:
    targets = torch.from_numpy(softmax(student.numpy()))
    expected = -(targets.numpy() * np.log(softmax(teacher.numpy() / temperature))).sum() / 6
    actual = inversion_losses.soft_cross_entropy(teacher, targets, temperature=temperature)
    assert actual.item() == pytest.approx(expected)


def test_variation_norm() -> None:
    images = draw(2, 3, 5, 4)
    x = images.numpy()
    pairs = [
        (x[:, :, 1:, :], x[:, :, :-1, :]),
        (x[:, :, :, 1:], x[:, :, :, :-1]),
        (x[:, :, 1:, 1:], x[:, :, :-1, :-1]),
        (x[:, :, 1:, :-1], x[:, :, :-1, 1:]),
    ]
    expected = sum(np.sqrt(((one - other) ** 2).sum()) for one, other in pairs)
    assert inversion_losses.variation_norm(images).item() == pytest.approx(expected)


def test_image_norm() -> None:
    images = draw(4, 3, 2, 2)
    expected = np.mean([np.sqrt((image**2).sum()) for image in images.numpy()])
    assert inversion_losses.image_norm(images).item() == pytest.approx(expected)


@pytest.mark.parametrize("limit", [1.0, 0.2])
def test_limited_js(teacher: Tensor, student: Tensor, limit: float) -> None:
    p, q = softmax(teacher.numpy()), softmax(student.numpy())
    m = (p + q) / 2
    each = (p * np.log2(p / m) + q * np.log2(q / m)).sum(axis=1) / 2
    expected = 1 - np.minimum(each, limit).mean()
    actual = inversion_losses.limited_js(teacher, student, limit=limit)
    assert actual.item() == pytest.approx(expected)


def test_an_image_beyond_the_limit_is_not_pushed_further() -> None:
    teacher, student = torch.eye(5)[:2] * 20, torch.eye(5)[1:3] * 20
    student[0] = teacher[0] * 0.1
    teacher.requires_grad_()
    inversion_losses.limited_js(teacher, student, limit=0.9).backward()
    assert teacher.grad is not None
    assert teacher.grad[0].abs().max() > 0
    assert teacher.grad[1].abs().max() == 0


@pytest.mark.parametrize("limit", [100.0, 0.05])
def test_agreeing_kl(teacher: Tensor, limit: float) -> None:
    student = teacher + draw(6, 5, seed=5, scale=0.8)
    p, q = softmax(teacher.numpy()), softmax(student.numpy())
    agrees = p.argmax(axis=1) == q.argmax(axis=1)
    assert 0 < agrees.sum() < 6
    each = np.minimum((p * np.log(p / q)).sum(axis=1), limit)
    expected = -np.where(agrees, each, 0).sum() / 6
    assert inversion_losses.agreeing_kl(teacher, student, limit=limit).item() == pytest.approx(expected)


def test_bounded_cross_entropy_of_40_outputs_lies_between_2_7_and_4_7() -> None:
    outputs, labels = draw(5, 40) * 100, torch.tensor([0, 7, 7, 39, 3])
    unit = outputs.numpy() / np.linalg.norm(outputs.numpy(), axis=1, keepdims=True)
    expected = -np.log(softmax(unit)[np.arange(5), labels.numpy()])
    np.testing.assert_allclose(inversion_losses.bounded_cross_entropy(outputs, labels), expected)
    extremes = torch.stack([torch.eye(40)[3], -torch.eye(40)[3]])
    low, high = inversion_losses.bounded_cross_entropy(extremes, labels[[4, 4]]).tolist()
    assert (low, high) == (pytest.approx(2.73, abs=0.01), pytest.approx(4.67, abs=0.05))


@pytest.mark.parametrize("new", [2, 5])
def test_info_nce(new: int) -> None:
    anchors, positives = draw(5, 3, seed=1), draw(5, 3, seed=2)
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (anchors.numpy(), positives.numpy()))
    each = -np.log(np.diag(softmax(one @ other.T / 0.2)))
    expected = each[:new].mean() + (each[new:].mean() if new < 5 else 0)
    actual = inversion_losses.info_nce(anchors, positives, temperature=0.2, new=new)
    assert actual.item() == pytest.approx(expected)


@pytest.mark.parametrize("focus", [0.0, 2.0])
def test_modulated_cross_entropy(teacher: Tensor, focus: float) -> None:
    classes, rarity = torch.tensor([0, 1, 2, 3, 4, 0]), draw(6).abs()
    p = softmax(teacher.numpy())[np.arange(6), classes.numpy()]
    expected = (rarity.numpy() * (1 - p) ** focus * -np.log(p)).mean()
    logits = teacher.clone().requires_grad_()
    loss = inversion_losses.modulated_cross_entropy(logits, classes, rarity, focus=focus)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert logits.grad is not None
    held = (rarity.numpy() * (1 - p) ** focus / 6)[:, None] * (softmax(teacher.numpy()) - np.eye(5)[classes.numpy()])
    np.testing.assert_allclose(logits.grad, held, atol=1e-12)
