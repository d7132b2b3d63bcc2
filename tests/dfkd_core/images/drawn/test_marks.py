import pytest
import torch

from dfkd_core.images.drawn import marks as module
from dfkd_core.images.drawn.marks import marks


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_writer(*shape: int) -> module._Writer:
    channels, height, width = shape
    return module._Writer((channels, height, width), draws(), torch.device("cpu"))


@pytest.mark.parametrize(("height", "width"), [(48, 192), (64, 64), (96, 24)])
def test_most_pictures_are_paper_with_some_ink(height: int, width: int) -> None:
    writer = a_writer(1, height, width)
    covered = writer._ink(writer._pages(150)).mean(dim=(1, 2, 3))  # how much of a picture is ink
    assert 0.04 < covered.mean() < 0.35
    assert (covered > 0.01).double().mean() > 0.8
    assert (covered < 0.5).double().mean() > 0.97


def test_rows_run_along_the_longer_side() -> None:
    """Then there are gaps between the marks of a row, and rows of one picture are never more than said."""
    for size in ((48, 192), (192, 48)):
        pages = a_writer(1, *size)._pages(300)
        along_width = (pages.angle.sin().abs() < 0.1).double().mean()
        assert along_width == (1 if size[1] > size[0] else 0)
        assert (pages.across - 2 * pages.margin >= pages.pitch - 1e-3).all()
    square = a_writer(1, 64, 64)._pages(300)
    turned = (square.angle.sin().abs() > 0.9).double().mean()
    assert 0.3 < turned < 0.7
    rows = ((square.across - 2 * square.margin) / square.pitch).round()
    assert rows.min() == 1
    assert 5 < rows.max() <= 64 / module.LEAST_ROW


def test_marks_come_again_along_a_row_and_differ_between_pictures() -> None:
    """A picture has at most as many different marks as an alphabet; four pictures share one."""
    writer = a_writer(1, 48, 192)
    pages = writer._pages(8)
    shares, numbers = writer._rows(pages, torch.arange(8) % 2)
    for picture in range(8):
        shown = numbers[picture][(shares[picture] >= 0) & (shares[picture] <= 1)]
        assert len(shown.unique()) > 3
        assert (shown // module.MARKS == picture % 2).all()


def test_distances_to_the_strokes_are_exact() -> None:
    places = torch.tensor([[[0.0, 0.0], [0.3, 0.4], [1.0, 1.0]]])
    points = torch.tensor([[[0.0, 0.0], [0.6, 0.8]], [[1.0, 0.0], [1.0, 0.0]]])
    found = module._distances(places, points)
    wanted = [[0.0, 0.5, (0.4**2 + 0.2**2) ** 0.5], [1.0, (0.7**2 + 0.4**2) ** 0.5, 1.0]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_ink_and_paper_differ_and_one_picture_in_six_is_light_on_dark() -> None:
    pictures = marks((3, 24, 96), 300, generator=draws())
    assert pictures.flatten(1).std(dim=1).min() > 0.005
    assert (pictures.amax(dim=1) - pictures.amin(dim=1)).mean() > 0.03  # some are coloured
    writer = a_writer(1, 24, 96)
    brightness = torch.rand(3000, generator=draws(1))
    assert (writer._tinted(brightness).flatten() == brightness).all()
    figure, ground = writer._brightness(3000)
    assert ((figure - ground).abs() >= module.LEAST_CONTRAST - 1e-6).all()
    assert (figure > ground).double().mean() == pytest.approx(module.LIGHT_ON_DARK, abs=0.03)


def test_blur_keeps_the_amount_of_ink_and_softens_its_edges() -> None:
    writer = a_writer(1, 64, 64)
    pages = writer._pages(50)
    sharp = torch.zeros((50, 1, 64, 64))
    sharp[:, :, 20:40, 20:40] = 1
    soft = writer._blurred(sharp, pages)
    torch.testing.assert_close(soft.sum(dim=(1, 2, 3)), sharp.sum(dim=(1, 2, 3)), rtol=1e-4, atol=0)
    steps = [float(levels.diff(dim=3).abs().amax(dim=(1, 2, 3)).mean()) for levels in (sharp, soft)]
    assert steps[1] < 0.8 * steps[0]


def test_some_pictures_end_before_their_longer_side() -> None:
    writer = a_writer(1, 16, 64)
    padded = writer._padded(torch.full((600, 1, 16, 64), 0.3))
    ended = (padded[:, 0, 0, -1] != 0.3).double().mean()
    assert ended == pytest.approx(module.PADDED, abs=0.06)
    assert padded.unique().tolist() == pytest.approx([0, 0.3, 0.5, 1])
    assert (padded[:, :, :, 0] == 0.3).all()
