"""Figures of one or two strokes, and how their pictures follow their points."""

import pytest
import torch
from torch import Tensor

from dfkd_core.images.drawn import figures as module
from dfkd_core.images.drawn.figures import Figures, figures

CPU = torch.device("cpu")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def straight(begin: tuple[float, float], end: tuple[float, float], size: tuple[int, int]) -> Figures:
    """Return a figure whose strokes are both one straight line, in hard white ink on black."""
    line = torch.stack([torch.linspace(*ends, module.POINTS) for ends in zip(begin, end, strict=True)], dim=1)
    return Figures(
        size=size,
        points=line.expand(1, module.STROKES, -1, -1).clone(),
        pen=torch.tensor([0.1]),
        softness=torch.tensor([50.0]),
        ink=torch.ones(1, 1),
        ground=torch.zeros(1, 1),
    )


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 20, 60), (3, 60, 20)])
def test_pictures_have_their_shape_and_range_and_some_ink(shape: tuple[int, int, int]) -> None:
    pictures = figures(shape, 300, generator=draws())
    assert pictures.shape == (300, *shape)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert (pictures.flatten(1).std(dim=1) > 0.02).double().mean() > 0.95
    if shape[0] == 1:  # light on black
        assert 0.01 < pictures.mean() < 0.3
        assert (pictures.amax(dim=(1, 2, 3)) > 0.5).all()


def test_equal_seeds_give_equal_pictures() -> None:
    one, same, other = (figures((1, 16, 16), 20, generator=draws(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_straight_line_has_ink_up_to_the_thickness_of_its_pen() -> None:
    size = (21, 41)
    picture = straight((-0.5, 0.0), (0.5, 0.0), size).pictures()[0, 0]  # 21 pixels long, 2.1 either way
    down, across = torch.meshgrid(*(torch.arange(side) - side // 2 for side in size), indexing="ij")
    beyond = (across.abs() - 10.5).clamp(min=0)
    inside = (down.square() + beyond.square()).sqrt() < 2.1
    assert torch.equal(picture > 0.5, inside)


def test_ink_follows_the_points_by_the_gradient() -> None:
    """The gradient of the ink in the upper half moves the points of a line upwards."""
    figure = straight((-0.3, 0.0), (0.3, 0.0), (24, 24))
    figure.softness.fill_(1.0)
    figure.points.requires_grad_()
    more = figure.pictures()[:, :, :12].sum() - figure.pictures()[:, :, 12:].sum()
    (slope,) = torch.autograd.grad(more, [figure.points])
    assert (slope[..., 1].sum(dim=(1, 2)) < 0).all()
    assert slope.isfinite().all()


def test_points_pens_and_colours_are_put_back_within_their_limits() -> None:
    drawn = Figures.drawn((3, 20, 40), 8, generator=draws())
    for leaf in (drawn.points, drawn.pen, drawn.ink):
        leaf.mul_(100)
    drawn.project()
    assert drawn.points[..., 0].abs().max() <= 1
    assert drawn.points[..., 1].abs().max() <= 0.5
    assert drawn.pen.max() <= module.MOST_PEN
    assert drawn.ink.max() <= 1


def test_figures_come_back_from_their_state() -> None:
    drawn = Figures.drawn((3, 20, 40), 8, generator=draws())
    again = Figures.of(drawn.state(), size=drawn.size, device=CPU)
    assert torch.equal(again.pictures(), drawn.pictures())
    again.points.zero_()
    assert not torch.equal(again.pictures(), drawn.pictures())


def test_most_figures_have_one_stroke_and_the_others_touch_it() -> None:
    points = Figures.drawn((1, 28, 28), 400, generator=draws()).points
    first, second = points.unbind(dim=1)
    alone = (first == second).all(dim=(1, 2))
    assert 0.5 < alone.double().mean() < 0.7
    gap = torch.stack([_nearest(one, other) for one, other in zip(first[~alone], second[~alone], strict=True)])
    assert gap.max() < 1e-5


def _nearest(one: Tensor, other: Tensor) -> Tensor:
    return torch.cdist(one, other[:1]).min()


def test_pictures_are_the_same_however_many_distances_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Figures.drawn((3, 12, 20), 9, generator=draws())
    together = drawn.pictures()
    monkeypatch.setattr(module, "COMPARED", 1)
    assert torch.allclose(drawn.pictures(), together, atol=1e-6)
