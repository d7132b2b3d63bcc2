"""Drawn lines and pages: the same for a seed and a number, and of the shape that the nets take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from benchmarks.drawn import letters, lines, pages, texts
from benchmarks.drawn.fonts import Fonts
from benchmarks.drawn.photograph import colours

FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONTS = Fonts(latin=(FOLDER / "DejaVuSans.ttf", FOLDER / "DejaVuSerif.ttf"), chinese=(FOLDER / "DejaVuSans.ttf",))


@pytest.mark.parametrize("draw", [lines.line, pages.page, letters.letter])
def test_an_image_follows_from_its_seed_and_number(draw: Callable[[int, int, Fonts], tuple[Any, int]]) -> None:
    first, again, other = (draw(7, number, FONTS) for number in (3, 3, 4))
    assert first[1] == again[1]
    assert np.array_equal(np.asarray(first[0]), np.asarray(again[0]))
    assert np.shape(first[0]) != np.shape(other[0]) or not np.array_equal(np.asarray(first[0]), np.asarray(other[0]))


def test_every_class_is_drawn() -> None:
    assert {lines.line(0, number, FONTS)[1] for number in range(12)} == {0, 1}
    assert {pages.page(0, number, FONTS)[1] for number in range(16)} == {0, 1, 2, 3}
    assert {letters.letter(0, number, FONTS)[1] for number in range(60)} == set(range(10))


def test_letters_of_the_two_splits_differ() -> None:
    assert letters.SEEDS["train"] != letters.SEEDS["test"]
    assert letters.letter(letters.SEEDS["train"], 0, FONTS)[0].shape == (letters.SIDE, letters.SIDE)


def test_a_short_line_is_padded_with_grey_and_a_long_one_pressed() -> None:
    white = lines.prepared(Image.new("RGB", (48, 24), (255, 255, 255)))
    assert white.shape == (3, 48, 192)
    assert np.all(white[:, :, :96] == 1)
    assert np.all(white[:, :, 96:] == 0)
    assert np.all(lines.prepared(Image.new("RGB", (600, 30), (255, 255, 255))) == 1)


def test_lines_are_prepared_in_the_order_blue_green_red() -> None:
    assert lines.prepared(Image.new("RGB", (192, 48), (255, 0, 0)))[:, 0, 0].tolist() == [-1, -1, 1]


def test_class_1_of_pages_is_turned_clockwise() -> None:
    """A page whose upper side is dark has the dark side on its right after a quarter turn."""
    upright = Image.new("L", (4, 4), 255)
    upright.paste(0, (0, 0, 4, 1))
    sides = [np.asarray(upright if turn is None else upright.transpose(turn)) for turn in pages.TURNS]
    assert [int(np.argmin([s[0].mean(), s[:, -1].mean(), s[-1].mean(), s[:, 0].mean()])) for s in sides] == [0, 1, 2, 3]


def test_pages_are_prepared_as_their_nets_take_them() -> None:
    page = Image.new("RGB", (300, 400), (255, 255, 255))
    white = (1 - np.array(pages.MEAN)) / np.array(pages.STD)
    assert pages.cropped(page).shape == (3, 224, 224)
    assert pages.letterboxed(page).shape == (3, 320, 320)
    assert pages.letterboxed(page)[:, 0, 0] == pytest.approx(white, rel=1e-5)


def test_a_text_has_letters_and_ink_differs_from_paper() -> None:
    draw = np.random.default_rng(0)
    assert all(any(map(str.isalpha, texts.english(draw, words=1))) for _ in range(200))
    for _ in range(200):
        ink, paper = (np.mean(colour) for colour in colours(draw))
        assert abs(ink - paper) > 60
