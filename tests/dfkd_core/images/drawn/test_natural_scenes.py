"""Drawn natural scenes, and whether their statistics are those of photographs.

The ranges are those of the literature on natural images:

- the power spectrum falls as 1 / f^p, with p of 1.6 to 3.0 in single photographs (Tolhurst, Tadmor, Chao, *Amplitude
  spectra of natural images*, Ophthalmic and Physiological Optics 12, 1992) and near 2 on average (Field, *Relations
  between the statistics of natural images and the response properties of cortical cells*, Journal of the Optical
  Society of America A 4, 1987);
- derivatives of the logarithm of the brightness have a kurtosis far above 3, of about 17 (Huang, Mumford, *Statistics
  of natural images and models*, CVPR 1999);
- red, green and blue are correlated by 0.78 to 0.98 (Palus, *Representations of colour images in different colour
  spaces*, in The Colour Image Processing Handbook, 1998).
"""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from dfkd_core.images.drawn import natural_scenes as module
from dfkd_core.images.drawn.natural_scenes import natural_scenes
from dfkd_core.images.procedural import procedural_images


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 13), (1, 64, 8), (3, 48, 192), (3, 5, 1)])
@pytest.mark.parametrize("count", [1, 7])
def test_pictures_fill_the_shape_and_the_unit_range(shape: tuple[int, int, int], count: int) -> None:
    pictures = natural_scenes(shape, count, generator=draws())
    assert pictures.shape == (count, *shape)
    assert pictures.isfinite().all()
    assert ((pictures >= 0) & (pictures <= 1)).all()


def test_equal_seeds_draw_equal_pictures_and_other_seeds_do_not() -> None:
    one, same, other = (natural_scenes((3, 16, 16), 8, generator=draws(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_pictures_that_are_drawn_in_parts_are_no_two_alike() -> None:
    with patch.object(module, "PART_SAMPLES", 3 * 4 * 16 * 16):
        pictures = natural_scenes((3, 16, 16), 40, generator=draws())
    assert len({picture.numpy().tobytes() for picture in pictures}) == 40


@pytest.mark.parametrize("shape", [(1, 40, 40), (1, 24, 96)])
def test_no_leaf_reaches_out_of_the_frame_in_which_it_is_drawn(shape: tuple[int, int, int]) -> None:
    """Each picture is drawn alone, so that its frames are small; then all frames are the whole picture."""
    with patch.object(module, "PART_SAMPLES", 1):
        framed = natural_scenes(shape, 12, generator=draws())
        with patch.object(module._Painter, "_frame", lambda *_: (slice(0, shape[1]), slice(0, shape[2]))):
            whole = natural_scenes(shape, 12, generator=draws())
    assert torch.equal(framed, whole)


def test_grey_and_colour_pictures_vary_within_and_between() -> None:
    for channels in (1, 3):
        pictures = natural_scenes((channels, 32, 32), 300, generator=draws())
        assert 0.4 < pictures.mean() < 0.6
        assert pictures.flatten(1).std(dim=1).mean() > 0.15
        assert pictures.mean(dim=(1, 2, 3)).std() > 0.1


def spectral_slope(pictures: Tensor) -> float:
    """The exponent of the mean power spectrum of the brightness over the frequency, of square pictures."""
    side = pictures.shape[-1]
    grey = pictures.mean(dim=1)
    window = torch.hann_window(side, periodic=False)
    power = torch.fft.fft2((grey - grey.mean(dim=(1, 2), keepdim=True)) * window * window[:, None])
    cycles = torch.fft.fftfreq(side) * side
    radius = torch.hypot(cycles[:, None], cycles)
    rings = torch.arange(2, side // 2)
    mean = power.abs().square().mean(dim=0)
    heights = torch.stack([mean[(radius - ring).abs() < 0.5].mean() for ring in rings]).log()
    places = rings.log() - rings.log().mean()
    return float((places * heights).sum() / places.square().sum())


def kurtosis_of_derivative(pictures: Tensor) -> float:
    steps = (255 * pictures.mean(dim=1) + 1).log().diff(dim=2)
    steps = steps - steps.mean()
    return float(steps.pow(4).mean() / steps.square().mean().square())


@pytest.mark.parametrize(("side", "count"), [(32, 800), (96, 120)])
def test_spectrum_and_derivatives_are_those_of_photographs(side: int, count: int) -> None:
    """At both sizes: photographs look alike at every scale. The shapes are unlike them."""
    pictures = natural_scenes((3, side, side), count, generator=draws())
    assert -3.0 < spectral_slope(pictures) < -1.6
    assert 8 < kurtosis_of_derivative(pictures) < 30
    shapes = procedural_images((3, side, side), count, generator=draws())
    assert spectral_slope(shapes) < -3
    assert kurtosis_of_derivative(shapes) > 30


def test_colours_are_correlated_as_in_photographs() -> None:
    pictures = natural_scenes((3, 32, 32), 1000, generator=draws())
    red_green, red_blue, green_blue = torch.corrcoef(pictures.movedim(1, 0).flatten(1))[(0, 0, 1), (1, 2, 2)].tolist()
    assert 0.78 < red_blue < red_green < 0.98
    assert 0.78 < green_blue < red_green


def test_sizes_follow_their_power_law() -> None:
    """Of radii with the density r^-1.5 from 0.1 to 1.2, 74 % are below 0.5."""
    painter = module._Painter((1, 32, 32), draws(), torch.device("cpu"))
    leaves = painter._leaves(1000)
    radii = leaves.axes.det().abs() ** -0.5  # the geometric mean of length and breadth
    assert radii.min() >= 0.0999
    assert radii.max() <= 1.2001
    below = (0.1**-0.5 - 0.5**-0.5) / (0.1**-0.5 - 1.2**-0.5)
    assert (radii < 0.5).double().mean() == pytest.approx(below, abs=0.02)
    assert leaves.counts.min() == 1
    assert leaves.counts.max() == module.LEAVES
    assert (leaves.counts <= 4).double().mean() > 0.5
