"""Ten capital letters of the system's fonts, grey, 48 × 48 pixels, as a data set on which no choice was made."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.drawn.fonts import Fonts, font
from benchmarks.drawn.photograph import colours, photograph

SIDE = 48
LETTERS = "ABCDEFGHIJ"  # their place is their class
COUNTS = {"train": 20_000, "test": 4_000}
SEEDS = {"train": 30_000, "test": 40_000}


def letter(seed: int, number: int, fonts: Fonts) -> tuple[npt.NDArray[np.uint8], int]:
    """Return one letter (48, 48) with its class."""
    draw = np.random.default_rng((seed, number))
    label = int(draw.integers(len(LETTERS)))
    ink, paper = colours(draw)
    shape = font(fonts.latin[draw.integers(len(fonts.latin))], int(draw.integers(26, 45)))
    left, top, right, bottom = shape.getbbox(LETTERS[label])
    free = SIDE - (right - left), SIDE - (bottom - top)
    place = [float(space / 2 + draw.uniform(-0.3, 0.3) * max(0, space)) for space in free]
    image = Image.new("RGB", (SIDE, SIDE), paper)
    ImageDraw.Draw(image).text((place[0] - left, place[1] - top), LETTERS[label], font=shape, fill=ink)
    seen = photograph(image, draw, paper=paper, degrees=12.0, blur=1.0).convert("L")
    return np.asarray(seen), label


def letters(split: str, fonts: Fonts) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the letters (N, 1, 48, 48) of "train" or "test", and their classes (N,)."""
    drawn = [letter(SEEDS[split], number, fonts) for number in range(COUNTS[split])]
    return np.stack([image for image, _ in drawn])[:, None], np.array([label for _, label in drawn], dtype=np.int64)
