from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.augment import augment
from dfkd_core.spec.config import Augmentation

LOW, HIGH = torch.tensor([-1.0]).view(1, 1, 1, 1), torch.tensor([1.0]).view(1, 1, 1, 1)


def changed(images: Tensor, *, seed: int = 0, **options: Any) -> Tensor:
    values = {"shift": 0.0, "flip": False, "mixup": 0.0, "noise": 0.0, "rotation": 0.0, **options}
    draws = torch.Generator().manual_seed(seed)
    return augment(images, Augmentation.model_validate(values), low=LOW, high=HIGH, generator=draws)


def ramp(count: int = 64) -> Tensor:
    """Images whose pixel values tell their place."""
    return torch.linspace(-1, 1, 16 * 8).view(1, 1, 16, 8).repeat(count, 1, 1, 1)


def test_nothing_asked_changes_nothing() -> None:
    assert torch.equal(changed(ramp()), ramp())
    assert not Augmentation(shift=0.0, flip=False, rotation=0.0, mixup=0.0, noise=0.0).active


def test_shifts_move_whole_images_by_at_most_the_share_and_repeat_edges() -> None:
    images = ramp()
    moved = changed(images, shift=0.125)
    padded = torch.nn.functional.pad(images, (1, 1, 2, 2), mode="replicate")
    places = {
        (down, across)
        for image in moved
        for down in range(5)
        for across in range(3)
        if torch.equal(image, padded[0, :, down : down + 16, across : across + 8])
    }
    assert len(places) == 15


def test_flips_mirror_about_half_of_the_images() -> None:
    images = ramp()
    flipped = changed(images, flip=True)
    mirrored = [torch.equal(one, other.flip(2)) for one, other in zip(flipped, images, strict=True)]
    kept = [torch.equal(one, other) for one, other in zip(flipped, images, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert 16 < sum(mirrored) < 48


def test_blends_are_convex_and_as_many_as_asked() -> None:
    images = torch.eye(64).view(64, 1, 8, 8)  # each image lights its own pixel
    blended = changed(images, mixup=0.5)
    torch.testing.assert_close(blended.sum(dim=(1, 2, 3)), torch.ones(64))
    touched = (blended != images).flatten(1).any(dim=1).sum()
    assert 20 < touched < 44


def test_noise_is_unbiased_differs_from_image_to_image_and_stays_valid() -> None:
    images = torch.zeros(64, 1, 16, 16)
    noisy = changed(images, noise=0.1)
    deviations = noisy.flatten(1).std(dim=1)
    assert abs(noisy.mean().item()) < 0.01
    assert deviations.min() < 0.03
    assert 0.15 < deviations.max() < 0.22
    assert changed(torch.ones(8, 1, 16, 16), noise=0.5).max() <= 1


def test_equal_draws_give_equal_images() -> None:
    options = {"shift": 0.1, "flip": True, "mixup": 0.5, "noise": 0.1}
    assert torch.equal(changed(ramp(), **options), changed(ramp(), **options))
    assert not torch.equal(changed(ramp(), **options), changed(ramp(), seed=1, **options))


def test_turning_moves_what_lies_off_the_centre_and_keeps_the_centre() -> None:
    images = torch.full((64, 1, 9, 9), -1.0)
    images[:, :, 4, 4] = 1.0
    turned = changed(images, rotation=90.0)
    assert (turned[:, :, 4, 4] > 0.99).all()
    images[:, :, 4, 8] = 1.0
    turned = changed(images, rotation=90.0)
    assert len({int(image.flatten()[: 9 * 8].argmax()) for image in turned[:, :, :4]}) > 3


def test_zoom_changes_the_size_within_its_limits() -> None:
    images = torch.full((64, 1, 32, 32), -1.0)
    images[:, :, 12:20, 12:20] = 1.0
    sides = ((changed(images, zoom=0.5) + 1) / 2).sum(dim=(1, 2, 3)).sqrt()
    assert 8 / 1.5 - 0.5 < sides.min() < 6.5
    assert 10 < sides.max() < 8 * 1.5 + 0.5


def test_light_moves_all_pixels_alike_and_stays_valid() -> None:
    images = ramp() * 0.1
    brighter = changed(images, brightness=0.2)
    offsets = (brighter - images).flatten(1)
    assert offsets.std(dim=1).max() < 1e-6
    assert offsets.max() <= 0.4
    assert offsets[:, 0].std() > 0.1
    contrasted = changed(images, contrast=0.5)
    scales = contrasted.flatten(1).std(dim=1) / images.flatten(1).std(dim=1)
    assert 0.5 <= scales.min() < 0.7
    assert 1.3 < scales.max() <= 1.5
    assert changed(ramp(), brightness=1.0).abs().max() <= 1
