import torch

from dfkd_core.images.drawn import shapes as module
from dfkd_core.images.drawn.shapes import shapes


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_most_images_show_something_and_no_two_are_alike() -> None:
    images = shapes((1, 32, 32), 400, generator=draws())
    contrast = images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))
    assert (contrast > 0.25).double().mean() > 0.8
    assert len({image.numpy().tobytes() for image in images if image.std() > 0}) > 390


def test_grounds_are_as_often_dark_and_bright_as_said() -> None:
    """At a corner, where shapes are rare; clouds and shapes that reach it take some away."""
    grey = shapes((1, 32, 32), 4000, generator=draws())[:, 0, 0, 0]
    assert 0.7 < (grey < 0.02).double().mean() < 0.87
    assert 0.1 < (grey > 0.98).double().mean() < 0.2
    colour = shapes((3, 32, 32), 4000, generator=draws())[:, :, 0, 0]
    assert 0.1 < (colour < 0.02).all(dim=1).double().mean() < 0.35
    assert 0.03 < (colour > 0.98).all(dim=1).double().mean() < 0.15


def test_colour_images_are_not_grey() -> None:
    images = shapes((3, 16, 16), 100, generator=draws())
    spread = (images.amax(dim=1) - images.amin(dim=1)).amax(dim=(1, 2))
    assert (spread > 0.1).double().mean() > 0.7


def test_the_fields_have_unit_variance_everywhere() -> None:
    for cells in module.CELLS:
        bumps = module._bumps(32, cells)
        torch.testing.assert_close(bumps.square().sum(dim=1), torch.ones(32))
