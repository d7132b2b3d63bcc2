"""Lines of marks that are no letters: a few random strokes each, set, coloured and photographed as lines of text are.

They tell what a student learns from the look of a line alone, without the letters that its teacher knows.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.drawn.photograph import colours, photograph

MARKS = 10  # different ones in a line
BENDS = 9  # points of a stroke
Stroke = npt.NDArray[np.float64]  # (BENDS, 2), from 0 to 1 across and down the cell of a mark


def marks_line(seed: int, number: int) -> Image.Image:
    """Return one line of marks."""
    draw = np.random.default_rng((seed, number))
    ink, paper = colours(draw)
    height, letters = int(draw.integers(24, 57)), int(draw.integers(3, 25))
    alphabet = [[_stroke(draw) for _ in range(draw.integers(1, 5))] for _ in range(MARKS)]
    breadths = height * draw.uniform(0.4, 1.0) * draw.uniform(0.7, 1.2, size=letters)
    margin, gap, thickness = height * draw.uniform(0.03, 0.35), height * draw.uniform(0.05, 0.3), height / 12
    size = (int(2 * margin + (breadths + gap).sum()) + 1, int(2 * margin + height) + 1)
    image = Image.new("RGB", size, paper)
    canvas, across = ImageDraw.Draw(image), margin
    for breadth in breadths:
        if draw.random() < 0.85:  # the rest are spaces
            for stroke in alphabet[draw.integers(MARKS)]:
                points = stroke * (breadth, height) + (across, margin)
                canvas.line([tuple(point) for point in points], fill=ink, width=max(1, round(thickness)))
        across += breadth + gap
    return photograph(image, draw, paper=paper, degrees=1.5, blur=1.2)


def _stroke(draw: np.random.Generator) -> Stroke:
    """Draw a straight stroke, most often upright or level, or a bent one."""
    begin, bend, end = draw.uniform(0.05, 0.95, size=(3, 2))
    if draw.random() < 0.6:
        if draw.random() < 0.8:
            fixed = draw.integers(2)
            end[fixed] = begin[fixed]
        bend = (begin + end) / 2
    along = np.linspace(0, 1, BENDS)[:, None]
    curve: Stroke = (1 - along) ** 2 * begin + 2 * along * (1 - along) * bend + along**2 * end
    return curve
