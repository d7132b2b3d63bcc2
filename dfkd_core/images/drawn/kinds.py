"""The kinds of procedural images: each is drawn by one function, in a file of its own in this folder."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from dfkd_core.images.drawn.figures import figures
from dfkd_core.images.drawn.marks import marks
from dfkd_core.images.drawn.natural_scenes import natural_scenes
from dfkd_core.images.drawn.shapes import shapes
from dfkd_core.options.kinds import KindName


class Draw(Protocol):
    """Draws images of one kind."""

    def __call__(
        self, shape: tuple[int, int, int], count: int, /, *, generator: torch.Generator, device: torch.device | None
    ) -> Tensor:
        """Return `count` images (N, C, H, W) with values in [0, 1], N at least 1.

        All draws come from `generator`, on the CPU, so that equal seeds give equal images.
        """
        ...


KINDS: Mapping[KindName, Draw] = {"shapes": shapes, "scenes": natural_scenes, "marks": marks, "figures": figures}
