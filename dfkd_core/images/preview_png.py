"""samples.png: a grid of a job's synthetic images, one row for each class. It is written only on request.

The bytes depend only on the images and the build. The file's Description text says what these images are.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MOST_ROWS, MOST_COLUMNS = 16, 10
MOST_PIXELS = 1280  # the longest side of the grid, unless a single image is larger
GAP = 2  # pixels between images
NOTE = "Synthetic images, made by dfkd without any data. They may resemble what the teacher was trained on."

Pixels = npt.NDArray[np.uint8]


def most_certain(teacher_logits: Tensor, *, side: int) -> Tensor:
    """Return the numbers, in ascending order, of the images that a grid of images of this longest side would show."""
    shown = [index for row in _rows(teacher_logits.float(), side=side) for index in row]
    return torch.tensor(sorted(shown))


def samples_png(images: Tensor, teacher_logits: Tensor, *, low: Tensor, high: Tensor) -> bytes:
    """Return a PNG of images (N, C, H, W), a row for each class of the teacher, most confident images first.

    `teacher_logits` is (N, num_classes); `low` and `high` are the bounds of valid values, (1, C, 1, 1).
    """
    shades = (images.float() - low) / (high - low)
    pixels = (shades.clamp(0, 1) * 255).round().byte().cpu().numpy()
    if pixels.shape[1] not in {1, 3}:  # the channels are neither grey nor RGB, so their mean is shown
        pixels = pixels.mean(axis=1, keepdims=True).round().astype(np.uint8)
    return _png(_grid(pixels, _rows(teacher_logits.float(), side=max(pixels.shape[2:]))))


def _rows(logits: Tensor, *, side: int) -> list[list[int]]:
    """Return the indices of the images in each row; a class without images has no row."""
    fitting = max(1, MOST_PIXELS // (side + GAP))
    classes, certainty = logits.argmax(1), logits.softmax(1).amax(1)
    found = []
    for label in sorted(set(classes.tolist()))[: min(MOST_ROWS, fitting)]:
        members = (classes == label).nonzero().flatten()
        surest = certainty[members].argsort(descending=True, stable=True)
        found.append(members[surest][: min(MOST_COLUMNS, fitting)].tolist())
    return found


def _grid(pixels: Pixels, rows: list[list[int]]) -> Pixels:
    """Return the grid (height, width, channels), white where there is no image; `pixels` is (N, C, H, W)."""
    _, channels, height, width = pixels.shape
    columns = max(map(len, rows))
    sheet = np.full((len(rows) * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, dtype=np.uint8)
    for row, indices in enumerate(rows):
        for column, index in enumerate(indices):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            sheet[top : top + height, left : left + width] = pixels[index].transpose(1, 2, 0)
    return sheet


def _png(sheet: Pixels) -> bytes:
    """Encode an 8-bit grey or RGB image without a timestamp (PNG, third edition, W3C 2025)."""
    height, width, channels = sheet.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    lines = b"".join(b"\0" + sheet[row].tobytes() for row in range(height))  # filter 0: none
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunks(header, lines))


def _chunks(header: bytes, lines: bytes) -> Iterator[bytes]:
    parts = {
        b"IHDR": header,
        b"tEXt": b"Description\0" + NOTE.encode("latin-1"),
        b"IDAT": zlib.compress(lines, 9),
        b"IEND": b"",
    }
    for kind, content in parts.items():
        yield struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
