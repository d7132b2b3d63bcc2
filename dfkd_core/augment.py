"""Augmentation of synthetic images: shifts, mirrors, blends and noise. The teacher labels the result anew."""

import torch
from torch import Tensor

from dfkd_core.config import Augmentation


def augment(images: Tensor, options: Augmentation, *, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """Changed copies of images (N, C, H, W); low and high are (1, C, 1, 1). Every draw comes from `generator`."""
    if options.flip:
        images = _flip(images, generator)
    if options.shift:
        images = _shift(images, options.shift, generator)
    if options.mixup:
        images = _blend(images, options.mixup, generator)
    if options.noise:
        images = _noise(images, options.noise * (high - low), generator).clamp(low, high)
    return images


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator).to(device)


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = _uniform((len(images), 1, 1, 1), generator, images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def _shift(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each image moved by whole pixels, at most `share` of the side; edges are repeated."""
    count, channels, height, breadth = images.shape
    rows = _shifted_indices(count, height, share, generator, images.device)  # (N, H)
    columns = _shifted_indices(count, breadth, share, generator, images.device)  # (N, W)
    moved = images.gather(2, rows.view(count, 1, height, 1).expand(-1, channels, -1, breadth))
    return moved.gather(3, columns.view(count, 1, 1, breadth).expand(-1, channels, height, -1))


def _shifted_indices(count: int, side: int, share: float, generator: torch.Generator, device: torch.device) -> Tensor:
    most = round(side * share)
    offsets = torch.randint(-most, most + 1, (count, 1), generator=generator).to(device)
    return (torch.arange(side, device=device) + offsets).clamp(0, side - 1)


def _blend(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """That share of images replaced by a convex combination with another of the batch."""
    draws = torch.rand((2, len(images), 1, 1, 1), generator=generator)
    other = torch.randperm(len(images), generator=generator).to(images.device)
    amount = torch.where(draws[0] < share, draws[1], torch.zeros(())).to(images.device)
    return torch.lerp(images, images[other], amount)


def _noise(images: Tensor, largest: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise whose standard deviation is uniform in [0, largest] from image to image."""
    amount = _uniform((len(images), 1, 1, 1), generator, images.device) * largest
    return images + amount * torch.randn(images.shape, generator=generator).to(images.device)
