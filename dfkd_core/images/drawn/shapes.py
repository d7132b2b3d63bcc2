"""Shapes: strokes, areas and clouds cut out of smooth random fields.

Baradad, Wulff, Wang, Isola, Torralba found that random processes can replace photographs: *Learning to See by Looking
at Noise*, NeurIPS 2021, https://arxiv.org/abs/2106.05963. The families of images here are our own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = (2, 3, 4, 6)  # the cells of a field along the image's shorter side, one number for each scale
STROKES, AREAS = 0.7, 0.15  # shares of strokes along a level line and of areas above it; the rest are soft areas
WINDOWED = 0.8  # share of the shapes that are confined to an ellipse
GREY_BRIGHT = 0.15  # share of grey images on a white ground; the others are on black
COLOUR_DARK, COLOUR_BRIGHT = 0.3, 0.1  # shares of colour images on black and on white; the rest have any two colours
GREY_CLOUDED, COLOUR_CLOUDED = 0.1, 0.5  # share of the grounds, and of the figures, that carry clouds
LEAST_SLOPE = 0.02  # added to the slope of a field, per pixel, so that a stroke on flat ground has a finite width


def shapes(
    shape: tuple[int, int, int], count: int, *, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """Draw `count` images (N, C, H, W) with values in [0, 1]. All draws come from `generator`, on the CPU."""
    artist = _Artist(shape[0], (shape[1], shape[2]), generator, device or torch.device("cpu"))
    per_scale = -(-count // len(CELLS))
    masks = torch.cat([artist.masks(per_scale, cells) for cells in CELLS])
    masks = masks[torch.randperm(len(masks), generator=generator)[:count].to(masks.device)]
    ground, figure = artist.colours(count)
    return torch.lerp(artist.clouded(ground), artist.clouded(figure), masks).clamp(0, 1)


class _Artist:
    """Draws the parts of images; it holds the image size, the random generator and the device."""

    def __init__(self, channels: int, size: tuple[int, int], generator: torch.Generator, device: torch.device) -> None:
        self._channels = channels
        self._size = size
        self._generator = generator
        self._device = device

    def _uniform(self, low: float, high: float, count: int, channels: int = 1) -> Tensor:
        draws = torch.rand((count, channels, 1, 1), generator=self._generator)
        return (low + (high - low) * draws).to(self._device)

    def masks(self, count: int, cells: int) -> Tensor:
        """Draw masks (N, 1, H, W) in [0, 1]: strokes along a level line of a field, areas above it, or soft areas."""
        field = self._field(count, cells)
        above = field - self._uniform(-0.8, 0.8, count)
        distance = above / _slope(field)  # the distance to the level line, in pixels, if the field is nearly plane
        stroke = ((self._uniform(0.6, 2.2, count) - distance.abs()) * 2).sigmoid()
        kind = self._uniform(0, 1, count)
        area = torch.where(kind < STROKES + AREAS, (distance * 2).sigmoid(), (above * 2).sigmoid())
        return torch.where(kind < STROKES, stroke, area) * self._window(count)

    def _field(self, count: int, cells: int) -> Tensor:
        """Draw smooth fields (N, 1, H, W) of unit variance: Gaussian bumps of random height on a regular grid."""
        down, across = (_bumps(side, max(2, round(cells * side / min(self._size)))) for side in self._size)
        heights = torch.randn((count, down.shape[1], across.shape[1]), generator=self._generator)
        fields = down.to(self._device) @ heights.to(self._device) @ across.T.to(self._device)
        return fields.unsqueeze(1)

    def _window(self, count: int) -> Tensor:
        """Draw windows (N, 1, H, W): soft ellipses near the centre, or ones for the images without a window."""
        places = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in self._size), indexing="ij")
        inside = torch.ones((), device=self._device)
        for place in places:
            offset, radius = self._uniform(-0.25, 0.25, count), self._uniform(0.35, 1.0, count)
            inside = inside - ((place.to(self._device) - offset) / radius).square()
        return torch.where(self._uniform(0, 1, count) < WINDOWED, (inside * 6).sigmoid(), 1.0)

    def colours(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw the colours of ground and figure, each (N, C, 1, 1).

        The colours are black and a light one, white and a dark one, or any two.
        """
        ground, figure, tint = (self._uniform(0, 1, count, self._channels) for _ in range(3))
        kind, light = self._uniform(0, 1, count), self._uniform(0.5, 1, count)
        grey = self._channels == 1
        if not grey:
            light = light * (1 - tint / 2)
        bright = kind >= 1 - (GREY_BRIGHT if grey else COLOUR_BRIGHT)
        dark = ~bright & (kind < (1 if grey else COLOUR_DARK))
        ground = torch.where(dark, 0.0, torch.where(bright, 1.0, ground))
        return ground, torch.where(dark, light, torch.where(bright, 1 - light, figure))

    def clouded(self, colours: Tensor) -> Tensor:
        """Expand colours (N, C, 1, 1) to images (N, C, H, W), and add clouds of several scales to some of them."""
        images = colours.repeat(1, 1, *self._size)
        share = GREY_CLOUDED if self._channels == 1 else COLOUR_CLOUDED
        chosen = (self._uniform(0, 1, len(colours)).flatten() < share).nonzero().flatten()
        amount = self._uniform(0.0, 0.4, len(chosen))
        for cells in CELLS:
            field = self._field(len(chosen) * self._channels, cells)
            images[chosen] += amount / cells * field.view(len(chosen), self._channels, *self._size)
        return images


def _bumps(side: int, cells: int) -> Tensor:
    """Return the height of each bump at each pixel, (side, cells + 3); the squares of each row sum to 1."""
    pixels = (torch.arange(side) + 0.5) / side * cells
    bumps = torch.arange(-1, cells + 2)
    return F.normalize(torch.exp(-2 * (pixels[:, None] - bumps).square()), dim=1)


def _slope(field: Tensor) -> Tensor:
    """Return the length of the gradient of fields (N, 1, H, W) at each pixel, plus LEAST_SLOPE."""
    down = F.pad(field.diff(dim=2), (0, 0, 0, 1))
    across = F.pad(field.diff(dim=3), (0, 1, 0, 0))
    return (down.square() + across.square()).sqrt() + LEAST_SLOPE
