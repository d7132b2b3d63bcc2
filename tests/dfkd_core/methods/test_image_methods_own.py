"""The particular behaviour of each method that optimises its images, beyond their contract."""

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_core.errors import RequirementError
from dfkd_core.methods.cmi import cropped
from dfkd_core.methods.csd import transformed
from dfkd_core.methods.fast import LearntGenerator
from dfkd_core.methods.nayer import NoisyLayers
from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod, shifted
from dfkd_core.methods.parts.image_starts import PixelStart, smooth_noise
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.methods.ssd_kd import class_rarity
from dfkd_core.methods.sttss import correlated_normal, feature_weights
from dfkd_core.methods.zskd import DirichletTargets, class_similarity
from dfkd_core.options.methods.csd import CsdOptions
from dfkd_core.options.methods.deepinversion import DeepInversionOptions
from dfkd_core.rng import Streams
from tests.dfkd_core.methods.test_image_methods import CPU, draws, synthesizer, tiny_student
from tests.dfkd_core.tiny import CLASSES, tiny_network, tiny_teacher

STARTS = [*((start, -1, 2) for start in ("smooth", "shapes", "scenes", "marks", "figures")), ("normal", -9, 9)]


@pytest.mark.parametrize("valid_range", [True, False])
def test_pixels_stay_in_the_valid_range_unless_told_not_to(valid_range: bool) -> None:
    source = synthesizer("deepinversion", valid_range=valid_range, learning_rate=1.0, steps=10)
    source.synthesize(None, rate=1.0)
    images = source.sample(8, generator=draws())
    assert (bool((images >= -1).all()) and bool((images <= 2).all())) == valid_range


@pytest.mark.parametrize(("start", "low", "high"), STARTS)
def test_pixels_start_as_they_are_told(start: str, low: float, high: float) -> None:
    space = tiny_teacher(shape=(3, 8, 12)).input_space
    options = DeepInversionOptions.model_validate({"batch_size": 40, "start": start})
    begun = PixelStart(options, space, draws=draws(), device=CPU).begin(torch.zeros((40, CLASSES)))
    images = begun.images().detach()
    assert images.shape == (40, 3, 8, 12)
    assert low <= images.min() < images.max() <= high
    assert images.std() > 0.3
    assert (images.max() > 2) == (start == "normal")


def test_smooth_noise_changes_slowly() -> None:
    fine, coarse = (smooth_noise((8, 1, 16, 16), scale, generator=draws()) for scale in (1, 4))
    steps = [float((levels[..., 1:] - levels[..., :-1]).abs().mean()) for levels in (fine, coarse)]
    assert steps[1] < steps[0] / 2


def test_a_shift_moves_a_whole_batch_and_repeats_its_edges() -> None:
    images = torch.arange(2.0 * 5 * 5).view(2, 1, 5, 5)
    generator, seen = draws(), set()
    for _ in range(200):
        moved = shifted(images, 1, generator=generator)
        down, across = divmod(int(moved[0, 0, 2, 2]), 5)
        rows, columns = (torch.arange(5) + offset - 2 for offset in (down, across))
        expected = images[:, :, rows.clamp(0, 4)][..., columns.clamp(0, 4)]
        assert torch.equal(moved, expected)
        seen.add((down, across))
    assert len(seen) == 9
    assert shifted(images, 0, generator=generator) is images


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


def test_a_student_without_a_linear_layer_is_refused_by_name() -> None:
    source = synthesizer("csd")
    source.synthesize(None, rate=1.0)
    with pytest.raises(RequirementError, match="linear layer"):
        source.synthesize(nn.Sequential(tiny_network()), rate=1.0)


@pytest.mark.parametrize(("group", "count"), [("rotations", 4), ("flips", 2), ("none", 1)])
def test_transforms_are_a_group_that_begins_with_the_identity(group: str, count: int) -> None:
    images = torch.rand((2, 3, 5, 5), generator=draws())
    assert CsdOptions.model_validate({"transforms": group}).num_transforms((3, 5, 5)) == count
    turned = [transformed(images, group, index) for index in range(count)]
    assert torch.equal(turned[0], images)
    assert len(torch.stack(turned).flatten(1).unique(dim=0)) == count
    again = [transformed(image, group, 1 % count) for image in turned]
    assert all(any(torch.equal(image, one) for one in turned) for image in again)
    assert CsdOptions().num_transforms((3, 5, 6)) == 2


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


def test_similar_classes_have_rows_of_a_similar_direction() -> None:
    weight = torch.tensor([[2.0, 0.0], [0.5, 0.5], [0.0, 3.0], [-1.0, 0.0]])
    half = 0.5**0.5
    slanted = 2 * half / (1 + half)  # cosines of the second row: half, 1, half, -half
    expected = [[1, (half + 1) / 2, 0.5, 0], [slanted, 1, slanted, 0], [0, half, 1, 0], [0, (1 - half) / 2, 0.5, 1]]
    torch.testing.assert_close(class_similarity(weight), torch.tensor(expected))


def test_soft_labels_of_zskd_have_the_mean_and_spread_of_their_dirichlet_distribution() -> None:
    similarity = torch.tensor([[1.0, 0.6, 0.0], [0.5, 1.0, 0.0], [0.0, 0.2, 1.0]])
    spread = []
    for scale in (1.0, 0.1):
        classes = ClassTargets(3, draws=draws(), device=CPU)
        wanted = ClassTargets(3, draws=draws(), device=CPU).classes(30_000)
        labels = DirichletTargets(similarity, [scale], classes=classes)(30_000)
        torch.testing.assert_close(labels.sum(dim=1), torch.ones(30_000))
        for number, row in enumerate(similarity.clamp(min=1e-3)):
            own, mean, total = labels[wanted == number], row / row.sum(), scale * float(row.sum())
            torch.testing.assert_close(own.mean(dim=0), mean, atol=0.01, rtol=0)
            torch.testing.assert_close(own.var(dim=0), mean * (1 - mean) / (total + 1), atol=0.01, rtol=0)
        spread.append(float(labels.amax(dim=1).mean()))
    assert spread[1] > spread[0]  # a small scale gives sure labels
    both = DirichletTargets(similarity, [1.0, 0.1], classes=ClassTargets(3, draws=draws(), device=CPU))(30_000)
    assert spread[0] < float(both.amax(dim=1).mean()) < spread[1]


def test_zskd_draws_targets_from_the_rows_of_the_last_layer_and_asks_at_its_temperature() -> None:
    teacher = tiny_teacher()
    assert isinstance(teacher.classifier, nn.Linear)
    source = synthesizer("zskd", teacher, temperature=4.0, smoothness_weight=0.0, adv_weight=0.0, shift=0, steps=1)
    assert isinstance(source, ImageMethod)
    similarity = class_similarity(teacher.classifier.weight)
    again = DirichletTargets(similarity, [1.0, 0.1], classes=ClassTargets(CLASSES, draws=draws(), device=CPU))
    source._draws.manual_seed(0)
    targets = source._targets(8)
    assert torch.equal(targets, again(8))
    images = torch.rand((8, *teacher.input_space.shape), generator=draws())
    terms = source._weighted_terms(source._look(images, targets, None))
    expected = nn.functional.cross_entropy(teacher(images) / 4, targets)
    torch.testing.assert_close(terms["target"][1], expected)


def test_zskd_needs_a_row_of_weights_for_each_class() -> None:
    teacher = tiny_teacher()
    teacher.classifier = nn.Linear(4, 1)
    with pytest.raises(RequirementError, match="row for each class"):
        synthesizer("zskd", teacher)


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
    assert isinstance(source, ImageMethod)
    start = source._start
    assert isinstance(start, LearntGenerator)
    before = [parameter.detach().clone() for parameter in start.network.parameters()]
    targets = source._targets(8)
    begun = start.begin(targets)
    weights = begun.groups[0][0]
    for _ in range(2):
        loss = nn.functional.cross_entropy(source._teacher(begun.images()), targets)
        gradients = torch.autograd.grad(loss, weights)
        for parameter, gradient in zip(weights, gradients, strict=True):
            parameter.grad = gradient
        begun.project()
    for learnt, gradient in zip(start.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(learnt.grad, 2 * gradient)
    start.finish(begun.images().detach(), targets)
    moved = [learnt.detach() - old for learnt, old in zip(start.network.parameters(), before, strict=True)]
    large = gradients[0].abs() > 1e-5
    torch.testing.assert_close(moved[0][large], -0.02 * gradients[0].sign()[large], rtol=0.01, atol=1e-6)


def test_nayer_draws_another_layer_for_every_run_of_classes_and_another_generator_in_the_end() -> None:
    source = synthesizer("nayer")
    assert isinstance(source, ImageMethod)
    start = source._start
    assert isinstance(start, NoisyLayers)
    targets = source._targets(8)
    classes = targets.argmax(dim=1)
    images = start.begin(targets).images()
    assert sorted(classes[:CLASSES].tolist()) == list(range(CLASSES))
    again = [(classes == label).nonzero().flatten() for label in range(CLASSES)]
    assert all(not torch.allclose(images[one], images[other], atol=1e-3) for one, other in again)
    network = start.network
    start.begin(targets)
    assert start.network is network
    start.begin(targets)
    assert start.network is not network


def test_rare_classes_weigh_more() -> None:
    made = torch.tensor([0.0, 2.0, 4.0])
    np.testing.assert_allclose(class_rarity(made, exponent=2.0), [(3 / n) ** 2 for n in (1, 3, 5)], rtol=1e-6)
    np.testing.assert_allclose(class_rarity(made, exponent=0.0), [1, 1, 1])
