"""What a camera or a scanner adds to a drawing: a slight turn, uneven light, blur, noise and compression."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Colour = tuple[int, int, int]


def colours(draw: np.random.Generator) -> tuple[Colour, Colour]:
    """Return the colours of ink and paper, at least 90 of 255 apart in brightness; one time in six light on dark."""
    dark = draw.integers(0, 110, size=3)
    light = np.clip(dark.max() + draw.integers(90, 146) + draw.integers(0, 30, size=3), 0, 255)
    ink, paper = (light, dark) if draw.random() < 1 / 6 else (dark, light)
    return _colour(ink), _colour(paper)


def _colour(values: npt.NDArray[np.int64]) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def photograph(
    image: Image.Image, draw: np.random.Generator, *, paper: Colour, degrees: float, blur: float
) -> Image.Image:
    """Return the picture turned by at most so many degrees, under uneven light, blurred, with noise, as a JPEG.

    `blur` is the largest standard deviation in pixels.
    """
    turned = image.rotate(draw.uniform(-degrees, degrees), Image.Resampling.BICUBIC, fillcolor=paper)
    if draw.random() < 0.5:
        turned = turned.filter(ImageFilter.GaussianBlur(draw.uniform(0.2, blur)))
    pixels = np.asarray(turned, dtype=np.float32)
    height, width, _ = pixels.shape
    across, down = np.linspace(-1, 1, width)[None, :, None], np.linspace(-1, 1, height)[:, None, None]
    light = 1 + draw.uniform(-0.15, 0.15) * across + draw.uniform(-0.15, 0.15) * down
    noise = draw.standard_normal(pixels.shape, dtype=np.float32)
    pixels = pixels * light.astype(np.float32) + np.float32(draw.uniform(0, 10)) * noise
    seen = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    seen.save(file, "jpeg", quality=int(draw.integers(40, 96)))
    return Image.open(file).convert("RGB")
