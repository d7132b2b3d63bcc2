"""Draws the pictures with which the input space of teachers is found, into the file that comes with the package.

python -m dfkd_core.images.drawn.reference_pictures     draws them again, by the same rules and from the same seed
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_core.images.drawn.figures import figures
from dfkd_core.images.drawn.natural_scenes import natural_scenes
from dfkd_core.images.procedural import procedural_images

FILE = Path(__file__).parents[2] / "inspection" / "input_space" / "pictures.npz"  # `inspection` cannot draw
COUNT = 24  # of each kind
SIDE = 32  # of strokes and shapes, whose lines are a few pixels wide
SCENE = 48  # side of natural scenes
SIGN, SIGNS = 12, 5  # side of a sign on a page, and how many there are along a side of the page
SEED = 0


def reference_pictures() -> dict[str, Tensor]:
    """Draw the pictures (COUNT, 1 or 3, side, side) of each kind, as whole numbers from 0 to 255."""
    drawn = {
        "strokes": procedural_images((1, SIDE, SIDE), COUNT, generator=_draws()),
        "shapes": procedural_images((3, SIDE, SIDE), COUNT, generator=_draws()),
        "scenes": natural_scenes((3, SCENE, SCENE), COUNT, generator=_draws()),
        "pages": _pages(_draws()),
        "figures": figures((1, SIDE, SIDE), COUNT, generator=_draws()),
    }
    return {kind: (images * 255).round().to(torch.uint8) for kind, images in drawn.items()}


def _draws() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def _pages(draws: torch.Generator) -> Tensor:
    """Draw white pages (COUNT, 1, side, side) with rows of dark signs."""
    count = COUNT * SIGNS**2
    signs = procedural_images((1, SIGN, SIGN), count, generator=draws)
    rows = signs.reshape(COUNT, SIGNS, SIGNS, SIGN, SIGN).transpose(2, 3)
    return 1 - rows.reshape(COUNT, 1, SIGNS * SIGN, SIGNS * SIGN)


def main() -> None:
    """Write the file."""
    drawn: dict[str, Any] = {kind: images.numpy() for kind, images in reference_pictures().items()}
    np.savez_compressed(FILE, **drawn)


if __name__ == "__main__":
    main()
