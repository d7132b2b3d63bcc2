"""Lines of text, upright (class 0) and turned by 180° (class 1), as a classifier of text direction gets them.

`prepared` does what `rapidocr_onnxruntime.ch_ppocr_cls.TextClassifier` does: the line is scaled to 48 pixels of height,
pressed to 192 pixels where it is longer, padded with grey where it is shorter, and scaled from -1 to 1 in the order
blue, green, red.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.drawn import texts
from benchmarks.drawn.fonts import Fonts, font
from benchmarks.drawn.photograph import colours, photograph

HEIGHT, WIDTH = 48, 192


def line(seed: int, number: int, fonts: Fonts) -> tuple[Image.Image, int]:
    """Return one line, cut out as a text detector does, with its class."""
    draw = np.random.default_rng((seed, number))
    if draw.random() < 0.5:
        text, files = texts.english(draw, words=int(draw.integers(1, 5))), fonts.latin
    else:
        text, files = texts.chinese(draw, characters=int(draw.integers(3, 15))), fonts.chinese
    letters = font(files[draw.integers(len(files))], int(draw.integers(24, 57)))
    ink, paper = colours(draw)
    left, top, right, bottom = letters.getbbox(text)
    margin = [int(share * (bottom - top)) + 1 for share in draw.uniform(0.03, 0.35, size=4)]
    width, height = int(right - left) + margin[0] + margin[1], int(bottom - top) + margin[2] + margin[3]
    image = Image.new("RGB", (width, height), paper)
    ImageDraw.Draw(image).text((margin[0] - left, margin[2] - top), text, font=letters, fill=ink)
    seen = photograph(image, draw, paper=paper, degrees=1.5, blur=1.2)
    turned = int(draw.integers(2))
    return (seen.transpose(Image.Transpose.ROTATE_180) if turned else seen), turned


def prepared(image: Image.Image) -> npt.NDArray[np.float32]:
    """Return the line (3, 48, 192) as the classifier takes it."""
    width = min(WIDTH, math.ceil(HEIGHT * image.width / image.height))
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), dtype=np.float32)[:, :, ::-1]
    padded = np.zeros((3, HEIGHT, WIDTH), dtype=np.float32)
    padded[:, :, :width] = pixels.transpose(2, 0, 1) / 127.5 - 1
    return padded
