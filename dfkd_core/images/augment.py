"""Augmentation of synthetic images: shifts, mirrors, blends and noise. The teacher labels the result anew."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.networks.precision import to_device
from dfkd_core.spec.config import Augmentation


def augment(images: Tensor, options: Augmentation, *, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """Return changed copies of images (N, C, H, W), with all draws from `generator`.

    `low` and `high` are the bounds of valid values, (1, C, 1, 1).
    """
    if options.flip:
        images = _flip(images, generator)
    if options.shift:
        images = _shift(images, options.shift, generator)
    if options.rotation or options.zoom:
        images = _turn(images, options.rotation, options.zoom, generator)
    if options.mixup:
        images = _blend(images, options.mixup, generator)
    if options.brightness or options.contrast:
        images = _light(images, options.brightness * (high - low), options.contrast, generator).clamp(low, high)
    if options.noise:
        images = _noise(images, options.noise * (high - low), generator).clamp(low, high)
    return images


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    return to_device(torch.rand(shape, generator=generator), device)


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = _uniform((len(images), 1, 1, 1), generator, images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def _shift(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Move each image by whole pixels, by at most `share` of the side, and repeat its edges."""
    count, channels, height, breadth = images.shape
    rows = _shifted_indices(count, height, share, generator, images.device)  # (N, H)
    columns = _shifted_indices(count, breadth, share, generator, images.device)  # (N, W)
    moved = images.gather(2, rows.view(count, 1, height, 1).expand(-1, channels, -1, breadth))
    return moved.gather(3, columns.view(count, 1, 1, breadth).expand(-1, channels, height, -1))


def _shifted_indices(count: int, side: int, share: float, generator: torch.Generator, device: torch.device) -> Tensor:
    most = round(side * share)
    offsets = torch.randint(-most, most + 1, (count, 1), generator=generator).to(device)
    return (torch.arange(side, device=device) + offsets).clamp(0, side - 1)


def _turn(images: Tensor, degrees: float, zoom: float, generator: torch.Generator) -> Tensor:
    """Turn and scale each image about its centre with bilinear sampling, and repeat its edges."""
    draws = torch.rand((2, len(images)), generator=generator) * 2 - 1
    angle = draws[0] * math.radians(degrees)
    shrink = torch.exp(-draws[1] * math.log1p(zoom))  # the grid shrinks where the image grows
    cosine, sine, zero = shrink * angle.cos(), shrink * angle.sin(), torch.zeros(len(images))
    rows = [torch.stack([cosine, -sine, zero], dim=1), torch.stack([sine, cosine, zero], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _light(images: Tensor, largest: Tensor, contrast: float, generator: torch.Generator) -> Tensor:
    """Change each image's contrast about its mean, and add one offset of at most `largest` to all its pixels."""
    draws = torch.rand((2, len(images), 1, 1, 1), generator=generator).to(images.device) * 2 - 1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + contrast * draws[0]) + largest * draws[1]


def _blend(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replace `share` of the images by a convex combination with another image of the batch."""
    draws = torch.rand((2, len(images), 1, 1, 1), generator=generator)
    other = torch.randperm(len(images), generator=generator).to(images.device)
    amount = torch.where(draws[0] < share, draws[1], torch.zeros(())).to(images.device)
    return torch.lerp(images, images[other], amount)


def _noise(images: Tensor, largest: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise; each image draws the standard deviation uniformly from [0, largest]."""
    amount = _uniform((len(images), 1, 1, 1), generator, images.device) * largest
    return images + amount * torch.randn(images.shape, generator=generator).to(images.device)
