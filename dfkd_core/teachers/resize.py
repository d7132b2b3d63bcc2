"""PyTorch functions for the operators that sample images at other positions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def interpolate(x: Tensor, *, mode: str, sizes: Sequence[int], align_corners: bool | None) -> Tensor:
    """Resize height and width."""
    return F.interpolate(x, size=tuple(sizes), mode=mode, align_corners=align_corners)


def pixels(x: Tensor, *, places: Sequence[Sequence[int]]) -> Tensor:
    """Return the given rows and columns; a row or column may be named several times."""
    rows, columns = (torch.tensor(chosen, device=x.device) for chosen in places)
    return x.index_select(2, rows).index_select(3, columns)


def grid_sample(x: Tensor, grid: Tensor, *, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    """Sample images at the positions of a grid (N, H, W, 2), whose values lie in [-1, 1]."""
    return F.grid_sample(x, grid, mode, padding_mode, align_corners)


def affine_grid(theta: Tensor, *, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return the grid (N, H, W, 2) of an affine map (N, 2, 3) for images of size (N, C, H, W)."""
    return F.affine_grid(theta, list(size), align_corners)


def depth_to_space(x: Tensor, *, blocksize: int, mode: str) -> Tensor:
    """Rearrange channels into blocks of pixels."""
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, blocksize, blocksize, channels // blocksize**2, height, width)
    spread = blocks.permute(0, 3, 4, 1, 5, 2)  # (N, C', H, block, W, block)
    return spread.reshape(batch, channels // blocksize**2, height * blocksize, width * blocksize)


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """Rearrange blocks of pixels into channels."""
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // blocksize, blocksize, width // blocksize, blocksize)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(
        batch, channels * blocksize**2, height // blocksize, width // blocksize
    )
