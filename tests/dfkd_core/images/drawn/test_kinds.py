"""What holds for every kind of procedural images."""

from typing import get_args

import pytest
import torch

from dfkd_core.images.drawn.kinds import KINDS
from dfkd_core.images.procedural import procedural_images
from dfkd_core.options.kinds import COSTS, KindName

NAMES = get_args(KindName)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_kind_of_the_spec_is_drawn_and_has_a_cost() -> None:
    assert set(NAMES) == set(KINDS) == set(COSTS)
    assert all(cost > 0 for cost in COSTS.values())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 13), (1, 64, 8), (3, 48, 192), (3, 5, 1)])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("kind", NAMES)
def test_images_fill_the_shape_and_the_unit_range(kind: KindName, count: int, shape: tuple[int, int, int]) -> None:
    images = procedural_images(shape, count, kinds=(kind,), generator=draws())
    assert images.shape == (count, *shape)
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("kinds", [*((name,) for name in NAMES), NAMES])
def test_equal_seeds_draw_equal_images_and_other_seeds_do_not(kinds: tuple[KindName, ...]) -> None:
    one, same, other = (procedural_images((1, 16, 16), 8, kinds=kinds, generator=draws(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_shapes_alone_are_drawn_where_nothing_is_said() -> None:
    silent = procedural_images((3, 16, 16), 9, generator=draws())
    assert torch.equal(silent, KINDS["shapes"]((3, 16, 16), 9, generator=draws(), device=None))


def test_every_kind_is_about_as_frequent_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind here is one shade of grey; the kinds are mixed, and their order is that of the list."""
    for number, kind in enumerate(NAMES):

        def grey(shape: tuple[int, int, int], count: int, *, shade: int = number, **_: object) -> torch.Tensor:
            return torch.full((count, *shape), shade / 4)

        monkeypatch.setitem(KINDS, kind, grey)  # type: ignore[arg-type]
    shades = procedural_images((1, 2, 2), 3000, kinds=NAMES, generator=draws())[:, 0, 0, 0] * 4
    counts = torch.bincount(shades.int(), minlength=len(NAMES))
    assert (counts > 0.9 * 3000 / len(NAMES)).all()
    assert (shades[:300].int().bincount() > 50).all()
    assert (procedural_images((1, 2, 2), 5, kinds=NAMES[1:2], generator=draws()) * 4 == 1).all()
