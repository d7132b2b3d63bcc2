from typing import Any

import pytest
import torch

from dfkd_core.images.procedural import procedural_images
from dfkd_core.images.refinement import Refining, soft_labels
from dfkd_core.networks.batchnorm import BatchNormStatistics
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.config import Refinement
from tests.dfkd_core.tiny import CLASSES, SHAPE, tiny_teacher


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(count: int = 40, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    return procedural_images(shape, count, generator=draws(7)) * 3 - 1  # the tiny teacher's range is [-1, 2]


def refine(teacher: Teacher, images: torch.Tensor, options: Refinement, *, generator: torch.Generator) -> torch.Tensor:
    """The images after all steps, as the loop takes them one by one."""
    refining = Refining.begin(teacher, images, options, generator=generator)
    while not refining.finished:
        refining.step(generator=generator)
    return refining.images()


def refined(images: torch.Tensor, seed: int = 0, **options: Any) -> torch.Tensor:
    shape = (images.shape[1], images.shape[2], images.shape[3])
    return refine(tiny_teacher(shape=shape), images, Refinement.model_validate(options), generator=draws(seed))


def variation(images: torch.Tensor) -> float:
    return float(images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean())


def test_soft_labels_are_probabilities_that_raise_every_class_equally_often() -> None:
    labels = soft_labels(4000, 5, generator=draws())
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(4000))
    counts = torch.bincount(labels.argmax(dim=1), minlength=5)
    assert counts.min() > 700
    assert 0.6 < labels.amax(dim=1).mean() < 0.95  # neither flat nor one-hot


def test_few_soft_labels_of_many_classes_reach_other_classes_each_time() -> None:
    generator = draws()
    seen = {int(label) for _ in range(60) for label in soft_labels(2, 50, generator=generator).argmax(dim=1)}
    assert len(seen) > 25


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13)])
def test_refined_images_are_new_detached_and_in_the_valid_range(shape: tuple[int, int, int]) -> None:
    images = some_images(6, shape)
    before = images.clone()
    after = refined(images)
    assert after.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(after, before)
    assert not after.requires_grad
    assert after.min() >= -1
    assert after.max() <= 2


def test_the_teacher_comes_closer_to_the_labels_that_were_drawn() -> None:
    images, teacher = some_images(), tiny_teacher()
    wanted = soft_labels(len(images), CLASSES, generator=draws())
    after = refined(images, smoothness=0.0)
    losses = [torch.nn.functional.cross_entropy(teacher(batch), wanted) for batch in (images, after)]
    assert losses[1] < 0.8 * losses[0]


def test_no_pixel_moves_much_further_than_the_steps_reach() -> None:
    images = some_images()
    moved = (refined(images, steps=3, learning_rate=0.02) - images).abs().amax()
    assert 0.02 < moved < 3 * 3 * 0.02 * 1.5  # three steps of 0.02 in a range of 3; Adam may overshoot a little


def test_batchnorm_statistics_are_matched_where_the_teacher_has_them() -> None:
    teacher, images = tiny_teacher(batchnorm=True), some_images()
    distances = []
    for weight in (0.0, 10.0):
        options = Refinement(bn_weight=weight, smoothness=0.0)
        after = refine(teacher, images, options, generator=draws())
        with BatchNormStatistics(teacher.network) as statistics:
            teacher(after)
            distances.append(float(statistics.distance()))
    assert distances[1] < 0.8 * distances[0]


def test_smoothness_smooths() -> None:
    images = torch.rand((40, *SHAPE), generator=draws()) * 3 - 1
    assert variation(refined(images, smoothness=20.0)) < 0.8 * variation(refined(images, smoothness=0.0))


def test_equal_seeds_refine_equally_and_other_seeds_do_not() -> None:
    images = some_images(8)
    assert torch.equal(refined(images), refined(images))
    assert not torch.equal(refined(images), refined(images, seed=1))


def test_the_teacher_gets_no_gradients() -> None:
    teacher = tiny_teacher()
    refine(teacher, some_images(4), Refinement(), generator=draws())
    assert all(parameter.grad is None for parameter in teacher.parameters())
