"""Every loss against a plain NumPy formula written from its equation."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dfkd_core.networks import losses

T = np.ndarray


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def softmax(logits: T) -> T:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture
def teacher() -> Tensor:
    return draw(6, 5, seed=1)


@pytest.fixture
def student() -> Tensor:
    return draw(6, 5, seed=2)


def test_logit_l1(student: Tensor, teacher: Tensor) -> None:
    expected = np.abs(student.numpy() - teacher.numpy()).sum() / 30
    assert losses.logit_l1(student, teacher).item() == pytest.approx(expected)


def test_kl_divergence(student: Tensor, teacher: Tensor) -> None:
    p, q = softmax(teacher.numpy() / 4), softmax(student.numpy() / 4)
    expected = (p * np.log(p / q)).sum() / 6 * 16
    assert losses.kl_divergence(student, teacher, temperature=4.0).item() == pytest.approx(expected)


def test_onehot(teacher: Tensor) -> None:
    expected = -np.log(softmax(teacher.numpy()).max(axis=1)).mean()
    assert losses.onehot(teacher).item() == pytest.approx(expected)


def test_class_balance_is_in_log_base_10(teacher: Tensor) -> None:
    mean = softmax(teacher.numpy()).mean(axis=0)
    assert losses.class_balance(teacher).item() == pytest.approx((mean * np.log10(mean)).sum())


def test_class_balance_of_a_balanced_batch() -> None:
    assert losses.class_balance(torch.eye(10) * 1000).item() == pytest.approx(-1.0)


def test_class_balance_of_one_class_has_no_nan() -> None:
    logits = torch.full((4, 10), -1000.0).index_fill(1, torch.tensor([3]), 1000.0).requires_grad_()
    loss = losses.class_balance(logits)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_activation() -> None:
    features = draw(4, 7)
    assert losses.activation(features).item() == pytest.approx(-np.abs(features.numpy()).mean())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_js_divergence(student: Tensor, teacher: Tensor, temperature: float) -> None:
    p, q = softmax(teacher.numpy() / temperature), softmax(student.numpy() / temperature)
    m = (p + q) / 2
    expected = (p * np.log2(p / m) + q * np.log2(q / m)).sum() / 2 / 6
    assert losses.js_divergence(teacher, student, temperature=temperature).item() == pytest.approx(expected)


def test_js_divergence_is_0_for_equal_logits_and_1_for_opposite_onehots(teacher: Tensor) -> None:
    assert losses.js_divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    one, other = torch.eye(10)[:4] * 200, torch.eye(10)[4:8] * 200
    assert losses.js_divergence(one, other).item() == pytest.approx(1, abs=1e-6)


def test_js_divergence_has_a_gradient_at_100_classes() -> None:
    teacher, student = draw(8, 100, seed=3), draw(8, 100, seed=4).requires_grad_()
    losses.js_divergence(teacher, student, temperature=3.0).backward()
    assert student.grad.abs().max() > 1e-5


def test_pseudo_js(student: Tensor, teacher: Tensor) -> None:
    p, q = softmax(teacher.numpy() / 3), softmax(student.numpy() / 3)
    m = ((p + q) / 2).clip(0.01, 0.99)
    p, q = p.clip(0.01, 0.99), q.clip(0.01, 0.99)
    expected = (m * (np.log(m) - np.log(p)) + m * (np.log(m) - np.log(q))).sum() / 2 / 30
    assert losses.pseudo_js(teacher, student).item() == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "largest"), [(10, 0.1614), (100, 0.01614)])
def test_pseudo_js_of_total_disagreement(classes: int, largest: float) -> None:
    one, other = torch.eye(classes)[:1] * 1000, torch.eye(classes)[1:2] * 1000
    assert losses.pseudo_js(one, other).item() == pytest.approx(largest, rel=1e-3)


def test_total_variation() -> None:
    images = draw(2, 3, 5, 4)
    pixels = images.numpy()
    expected = np.abs(np.diff(pixels, axis=2)).mean() + np.abs(np.diff(pixels, axis=3)).mean()
    assert losses.total_variation(images).item() == pytest.approx(expected)


def test_total_variation_of_one_pixel_is_zero() -> None:
    assert losses.total_variation(draw(2, 3, 1, 1)).item() == 0


def test_batchnorm_distance() -> None:
    moments = [tuple(draw(4, seed=seed + layer) for seed in range(4)) for layer in (0, 10)]
    expected = sum(np.linalg.norm(m - rm) + np.linalg.norm(v - rv) for m, v, rm, rv in moments)
    assert losses.batchnorm_distance(moments).item() == pytest.approx(float(expected))


def test_kld_from_standard_normal() -> None:
    mu, logvar = draw(4, 6, seed=1), draw(4, 6, seed=2)
    m, lv = mu.numpy(), logvar.numpy()
    expected = (-0.5 * (1 + lv - m**2 - np.exp(lv)).sum(axis=1)).mean()
    assert losses.kld_from_standard_normal(mu, logvar).item() == pytest.approx(expected)


def test_standard_normal_moments() -> None:
    z = draw(9, 3)
    values = z.numpy()
    expected = ((values.var(axis=0, ddof=1) - 1) ** 2).mean() + (values.mean(axis=0) ** 2).mean()
    assert losses.standard_normal_moments(z).item() == pytest.approx(expected)


def test_negative_entropy_is_in_natural_logarithms(teacher: Tensor) -> None:
    mean = softmax(teacher.numpy()).mean(axis=0)
    assert losses.negative_entropy(teacher).item() == pytest.approx((mean * np.log(mean)).sum())


def test_l1_disagreement_of_each_image(student: Tensor, teacher: Tensor) -> None:
    expected = np.abs(student.numpy() - teacher.numpy()).sum(axis=1) / 5
    actual = losses.disagreement("l1", teacher, student, temperature=1.0)
    np.testing.assert_allclose(actual.numpy(), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_disagreement_of_each_image(student: Tensor, teacher: Tensor, temperature: float) -> None:
    p, q = softmax(teacher.numpy() / temperature), softmax(student.numpy() / temperature)
    expected = (p * np.log(p / q)).sum(axis=1) * temperature**2
    actual = losses.disagreement("kl", teacher, student, temperature=temperature)
    np.testing.assert_allclose(actual.numpy(), expected)


def test_a_bound_on_each_value_or_on_the_mean() -> None:
    values = torch.tensor([1.0, 2.0, 9.0], requires_grad=True)
    assert losses.bounded_mean(values, None, per_sample=True).item() == 4
    assert losses.bounded_mean(values, 3.0, per_sample=False).item() == 3
    bounded = losses.bounded_mean(values, 3.0, per_sample=True)
    assert bounded.item() == 2
    bounded.backward()
    assert values.grad is not None
    np.testing.assert_allclose(values.grad, [1 / 3, 1 / 3, 0])


def test_norm_excess() -> None:
    embeddings = draw(5, 4)
    expected = np.maximum(0, np.sqrt((embeddings.numpy() ** 2).sum(axis=1)) - 2).mean()
    assert expected > 0
    assert losses.norm_excess(embeddings).item() == pytest.approx(expected)


def halves(values: T) -> T:
    return (values[3:6] - values[:3]).reshape(3, -1)


@pytest.mark.parametrize("count", [6, 7])
def test_diversity_ratio(count: int) -> None:
    images, logits = draw(count, 2, 4, 4, seed=3), draw(count, 5, seed=4)
    answers, pixels = halves(softmax(logits.numpy())), halves(images.numpy())
    pairs = np.sqrt((answers**2).sum(axis=1)) / np.sqrt((pixels**2).sum(axis=1))
    whole = np.sqrt((answers**2).sum()) / np.sqrt((pixels**2).sum())
    assert losses.diversity_ratio(images, logits, per_pair=True).item() == pytest.approx(pairs.mean())
    assert losses.diversity_ratio(images, logits, per_pair=False).item() == pytest.approx(whole)


def test_diversity_ratio_of_equal_images_is_finite() -> None:
    images = torch.ones(4, 1, 2, 2, requires_grad=True)
    ratio = losses.diversity_ratio(images, images.flatten(1), per_pair=True)
    ratio.backward()
    assert ratio.item() == 0
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_weighted_sum() -> None:
    terms = {"a": (2.0, torch.tensor(3.0)), "b": (0.5, torch.tensor(4.0))}
    assert losses.weighted_sum(terms).item() == 8


def test_unexplained_is_the_mean_squared_error_in_variances(student: Tensor, teacher: Tensor) -> None:
    guess, wanted = student.numpy(), teacher.numpy()
    expected = ((guess - wanted) ** 2).mean() / wanted.var(axis=0).mean()
    assert losses.unexplained(student, teacher).item() == pytest.approx(expected)


def test_guessing_the_mean_explains_nothing(teacher: Tensor) -> None:
    guess = teacher.mean(dim=0).expand_as(teacher)
    assert losses.unexplained(guess, teacher).item() == pytest.approx(1.0)


def test_attention_distance() -> None:
    ours, theirs = draw(3, 2, 4, 5, seed=1), draw(3, 6, 4, 5, seed=2)
    expected = 0.0
    for own, other in zip(ours.numpy(), theirs.numpy(), strict=True):
        attentions = [(maps**2).mean(axis=0).ravel() for maps in (own, other)]
        a, b = (attention / np.linalg.norm(attention) for attention in attentions)
        expected += ((a - b) ** 2).sum() / 3
    assert losses.attention_distance([(ours, theirs)]).item() == pytest.approx(expected)
    twice = losses.attention_distance([(ours, theirs), (ours, theirs)])
    assert twice.item() == pytest.approx(2 * expected)


def test_attention_has_no_scale() -> None:
    maps = draw(3, 2, 4, 5)
    assert losses.attention_distance([(maps, maps * 7)]).item() == pytest.approx(0.0, abs=1e-12)
