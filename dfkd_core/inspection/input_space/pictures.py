"""The drawn pictures on which the statistics of a teacher's layers are looked at, in any size and number of channels.

They come with the package in one small file, which `python -m dfkd_core.images.drawn.reference_pictures` draws by rule;
no photograph is among them. The service, which reads them, has no PyTorch to draw with.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from dfkd_core.input_estimate import Kind
from dfkd_core.inspection.input_space.conventions import Bounds
from dfkd_core.onnx_import.ir.plan import Array, Shape

FILE = Path(__file__).with_name("pictures.npz")
KINDS: tuple[Kind, ...] = ("strokes", "shapes", "scenes", "pages")
"""What conventions are compared on. The file holds figures too, which are looked at under the best convention."""
LUMINANCE = (0.299, 0.587, 0.114)


def pictures(shape: Shape, count: int, kinds: Sequence[Kind] = KINDS) -> dict[Kind, Array]:
    """Return `count` pictures (count, C, H, W) in [0, 1] of each of the kinds, for images of `shape` (C, H, W)."""
    channels, height, width = shape
    stored = _stored()
    return {kind: _resized(_coloured(stored[kind][:count], channels), height, width) for kind in kinds}


@cache
def _stored() -> dict[Kind, Array]:
    """Return the pictures (N, 1 or 3, H, W) in [0, 1] of the file, by kind."""
    with np.load(FILE) as file:
        return {kind: file[kind].astype(np.float32) / 255 for kind in file.files}


def _coloured(stored: Array, channels: int) -> Array:
    """Return pictures with that many channels: colours become their luminance, and grey is repeated."""
    if channels == stored.shape[1]:
        return stored
    grey = stored if stored.shape[1] == 1 else np.tensordot(stored, np.array(LUMINANCE, "f4"), (1, 0))[:, None]
    return np.repeat(grey, channels, axis=1)


def in_bounds(drawn: Array, bounds: Bounds) -> Array:
    """Return drawn pictures (N, C, H, W) with 0 and 1 replaced by the lowest and the highest value of each channel."""
    low, high = (np.array(bound).reshape(1, -1, 1, 1) for bound in bounds)
    return np.asarray(low + (high - low) * drawn, np.float32)


def _resized(images: Array, height: int, width: int) -> Array:
    """Return pictures (N, C, height, width); each is resized with a triangle filter, its sides independently."""
    down, across = _filter(images.shape[2], height), _filter(images.shape[3], width)
    resized: Array = np.clip(np.matmul(np.matmul(down, images), across.T), 0, 1)
    return resized


def _filter(size: int, wanted: int) -> Array:
    """Return the weights (wanted, size) of the old pixels in each new one; they sum to 1."""
    reach = max(1.0, size / wanted)
    places = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size)) / reach)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
