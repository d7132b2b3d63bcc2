"""Natural scenes: pictures of overlapping things, drawn by rule, with the statistics of photographs.

Each picture is a ground with some leaves over it, which hide each other: discs, boxes and rhombs of all sizes. Every
leaf has a colour, a texture and a shade of its own. No network makes them and no photograph is looked at.

Lee, Mumford, Huang, *Occlusion models for natural images: a statistical study of a scale-invariant dead leaves model*,
International Journal of Computer Vision 41, 2001, show that occlusion by leaves of a power law of sizes gives the
heavy-tailed derivatives and the spectrum of photographs; Baradad, Wulff, Wang, Isola, Torralba, *Learning to See by
Looking at Noise*, NeurIPS 2021, https://arxiv.org/abs/2106.05963, train networks on such pictures. The colours lie
along the axes that Ruderman, Cronin, Chiao, *Statistics of cone responses to natural images: implications for visual
coding*, Journal of the Optical Society of America A 15, 1998, found uncorrelated. The numbers are our own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_core.images.drawn.draws import Draws

PART_SAMPLES = 2**18  # samples that are taken at a time, so that they stay in the processor's cache
SUBPIXELS = (-0.25, 0.25)  # places of a pixel's samples in each direction: the picture is drawn at twice the size

LEAVES = 16  # the most leaves of a square picture; their number is log-uniform from 1
LONGEST = 8.0  # the largest ratio of the sides with which the number of leaves grows
SMALLEST, LARGEST, POWER = 0.1, 1.2, 1.5  # radii, in halves of the shorter side, and the exponent of their power law
ASPECT = 0.5  # standard deviation of the logarithm of a leaf's length over its breadth
DISC, BOX, RHOMB = range(3)
DISCS, BOXES = 0.5, 0.35  # shares of the outlines; the rest are rhombs
WOBBLING = 0.5  # share of the leaves with a wobbling outline
LEAST_WOBBLE, MOST_WOBBLE = 0.1, 0.35  # by how much of its size such an outline moves where the field is 1
WOBBLE_STEEPNESS, WOBBLE_LIMIT = 2.5, 2.0  # of the field that makes outlines wobble: exponent, largest absolute value

LUMINANCE, BLUE_YELLOW, RED_GREEN, OTHER = 1.5, 0.4, 0.2, 0.3  # standard deviations of a leaf's colour, as logits
LEAST_SPREAD, MOST_SPREAD = 0.3, 1.7  # by how much the colours of a picture are multiplied
TEXTURES = 2  # fields in a picture; each leaf shows one of them
FLATTEST, STEEPEST = 0.4, 1.6  # exponents of the amplitude of a texture over the frequency
MOST_TEXTURE = 1.8  # the largest standard deviation of a leaf's texture, as logits
LEAF_SHADE, GROUND_SHADE = 0.4, 0.8  # standard deviations of the slope of the shade, per half of the shorter side
CONTRAST = 1.1  # by which logits are multiplied before the logistic curve


def natural_scenes(
    shape: tuple[int, int, int], count: int, *, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """Draw `count` pictures (N, C, H, W) with values in [0, 1]. All draws come from `generator`, on the CPU."""
    painter = _Painter(shape, generator, device or torch.device("cpu"))
    at_once = max(1, PART_SAMPLES // (len(SUBPIXELS) ** 2 * shape[1] * shape[2]))
    return torch.cat([painter.pictures(min(at_once, count - first)) for first in range(0, count, at_once)])


@dataclass(frozen=True, slots=True)
class _Leaves:
    """The outlines of the leaves of N pictures, K each, on the CPU. Lengths are in halves of the shorter side."""

    centres: Tensor  # (N, K, 2): down and across, from the middle of the picture
    axes: Tensor  # (N, K, 2, 2): `axes @ (place - centre)` is (±1, 0) and (0, ±1) at the tips of the leaf
    reach: Tensor  # (N, K): no point of the leaf is farther from its centre than this, down or across
    kinds: Tensor  # (N, K): DISC, BOX or RHOMB
    wobbles: Tensor  # (N, K): by how much of its size the outline moves where the field is 1
    counts: Tensor  # (N,): how many leaves there are


class _Painter:
    """Draws pictures of one shape; it holds the random generator and the device."""

    def __init__(self, shape: tuple[int, int, int], generator: torch.Generator, device: torch.device) -> None:
        self._channels, *self._size = shape
        self._draws = Draws(generator)
        self._device = device
        self._half = [side / min(self._size) for side in self._size]  # half the height and width
        self._most = round(LEAVES * min(LONGEST, max(self._half)))

    def pictures(self, count: int) -> Tensor:
        """Draw `count` pictures (N, C, H, W)."""
        leaves, looks = self._leaves(count), self._looks(count)
        textures = self._fields(self._draws.uniform(FLATTEST, STEEPEST, TEXTURES, count))
        wobble = self._fields(torch.full((count,), WOBBLE_STEEPNESS)).clamp_(-WOBBLE_LIMIT, WOBBLE_LIMIT)
        seen = self._seen(leaves, wobble).flatten(2)  # (4, N, H * W)
        rows = seen + torch.arange(count, dtype=torch.int32, device=self._device)[:, None] * (1 + self._most)
        shades = torch.stack([self._places(0)[:, None].expand(*self._size), self._places(1).expand(*self._size)])
        planes = torch.cat([shades.unsqueeze(1).expand(-1, count, -1, -1), textures]).view(2 + TEXTURES, -1)
        return self._painted(looks, rows.flatten(1), planes).view(-1, count, *self._size).transpose(0, 1).contiguous()

    def _places(self, axis: int, within: float = 0.0) -> Tensor:
        """Return the places (side,) of one sample of each pixel, from -half to half of a side."""
        pixels = torch.arange(self._size[axis], device=self._device) + (0.5 + within)
        return (pixels / self._size[axis] * 2 - 1) * self._half[axis]

    def _leaves(self, count: int) -> _Leaves:
        size = count, self._most
        centres = torch.stack([self._draws.uniform(-half, half, *size) for half in self._half], dim=2)
        radii = self._draws.uniform(SMALLEST ** (1 - POWER), LARGEST ** (1 - POWER), *size) ** (1 / (1 - POWER))
        stretch = (ASPECT / 2 * self._draws.normal(*size)).exp()
        angles = self._draws.uniform(0, math.pi, *size)
        kinds = torch.bucketize(self._draws.uniform(0, 1, *size), torch.tensor([DISCS, DISCS + BOXES]))
        wobbles = (self._draws.uniform(0, 1, *size) < WOBBLING) * self._draws.uniform(LEAST_WOBBLE, MOST_WOBBLE, *size)
        counts = self._draws.uniform(0, math.log(self._most + 1), count).exp().clamp(1, self._most)
        down, across, length, breadth = angles.sin(), angles.cos(), radii * stretch, radii / stretch
        tips = torch.stack([down, across, across, -down], dim=2).view(*size, 2, 2)
        axes = tips / torch.stack([length, breadth], dim=2).unsqueeze(3)
        corners = torch.where(kinds == BOX, torch.hypot(length, breadth), torch.maximum(length, breadth))
        reach = corners * (1 + WOBBLE_LIMIT * wobbles)
        return _Leaves(centres, axes, reach, kinds, wobbles, counts.floor())

    def _looks(self, count: int) -> Tensor:
        """Draw how the grounds and leaves look, (C + 2 + TEXTURES, N * (1 + K)); the ground comes before the leaves.

        The rows are the colour, the slopes of the shade down and across, and the strength of each texture.
        """
        size = count, 1 + self._most
        colours = LUMINANCE * self._draws.normal(*size, 1) + self._chroma(*size)
        colours = colours * self._draws.uniform(LEAST_SPREAD, MOST_SPREAD, count, 1, 1)
        slopes = LEAF_SHADE * self._draws.normal(*size, 2)
        slopes[:, 0] *= GROUND_SHADE / LEAF_SHADE
        strengths = self._draws.uniform(-MOST_TEXTURE, MOST_TEXTURE, *size, 1)
        shown = self._draws.whole(TEXTURES, *size, 1) == torch.arange(TEXTURES)
        looks = torch.cat([colours, slopes, strengths * shown], dim=2)
        return looks.flatten(0, 1).T.contiguous().to(self._device)

    def _chroma(self, count: int, leaves: int) -> Tensor:
        """Draw how far colours are from grey, (N, 1 + K, C)."""
        if self._channels == 1:
            return torch.zeros((count, leaves, 1))
        if self._channels != 3:
            return OTHER * self._draws.normal(count, leaves, self._channels)
        blue_yellow = BLUE_YELLOW * math.sqrt(1 / 2) * torch.tensor([1.0, 1.0, -2.0])
        red_green = RED_GREEN * math.sqrt(3 / 2) * torch.tensor([1.0, -1.0, 0.0])
        return self._draws.normal(count, leaves, 1) * blue_yellow + self._draws.normal(count, leaves, 1) * red_green

    def _fields(self, steepness: Tensor) -> Tensor:
        """Draw random fields (*steepness.shape, H, W) of mean 0 and variance near 1, of amplitude 1 / f^steepness."""
        height, width = self._size
        down, across = torch.fft.fftfreq(height) * height, torch.fft.rfftfreq(width) * width
        frequencies = torch.hypot(down[:, None] / self._half[0], across[None, :] / self._half[1])
        frequencies[0, 0] = math.inf
        amplitudes = (-steepness[..., None, None] * frequencies.log()).exp()
        power = 2 * amplitudes.square().sum(dim=(-2, -1), keepdim=True)  # a column stands for two frequencies
        waves = torch.view_as_complex(self._draws.normal(*amplitudes.shape, 2))
        spectrum = (waves * amplitudes / (2 * power).sqrt().clamp(min=1e-9)).to(self._device)
        fields: Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm="forward")
        return fields

    def _seen(self, leaves: _Leaves, wobble: Tensor) -> Tensor:
        """Return the number of the leaf that each sample of each pixel shows, (4, N, H, W), or 0 for the ground.

        Later leaves hide earlier ones.
        """
        samples = len(SUBPIXELS)
        down, across = (torch.stack([self._places(axis, within) for within in SUBPIXELS]) for axis in range(2))
        seen = torch.zeros((samples, samples, len(wobble), *self._size), dtype=torch.uint8, device=self._device)
        for number in range(int(leaves.counts.max())):
            for kind in (DISC, BOX, RHOMB):
                chosen = ((leaves.counts > number) & (leaves.kinds[:, number] == kind)).nonzero().flatten()
                rows, columns = self._frame(leaves, chosen, number)
                if rows.start >= rows.stop or columns.start >= columns.stop:
                    continue
                on = chosen.to(self._device)
                axes, centre, moved = (
                    part[chosen, number].to(self._device)[..., None, None]
                    for part in (leaves.axes, leaves.centres, leaves.wobbles)
                )
                y = down[:, None, None, rows, None] - centre[:, 0]
                x = across[None, :, None, None, columns] - centre[:, 1]
                along, beside = (axes[:, axis, 0] * y + axes[:, axis, 1] * x for axis in range(2))
                if kind == DISC:
                    size = along.mul_(along).addcmul_(beside, beside)
                elif kind == BOX:
                    size = torch.maximum(along.abs_(), beside.abs_())
                else:
                    size = along.abs_().add_(beside.abs_())
                hidden = size < 1 + moved * wobble[on, rows, columns]
                seen[:, :, on, rows, columns] = seen[:, :, on, rows, columns].masked_fill_(hidden, number + 1)
        return seen.flatten(0, 1)

    def _frame(self, leaves: _Leaves, chosen: Tensor, number: int) -> tuple[slice, slice]:
        """Return the rows and columns that the leaves with this number reach in the chosen pictures, or none."""
        frame = []
        for axis, side in enumerate(self._size):
            centre, reach = leaves.centres[chosen, number, axis], leaves.reach[chosen, number]
            if not len(chosen):
                frame.append(slice(0, 0))
                continue
            scale = side / (2 * self._half[axis])
            first = math.floor((float((centre - reach).min()) + self._half[axis]) * scale) - 1
            last = math.ceil((float((centre + reach).max()) + self._half[axis]) * scale) + 1
            frame.append(slice(max(0, first), min(side, last)))
        return frame[0], frame[1]

    def _painted(self, looks: Tensor, rows: Tensor, planes: Tensor) -> Tensor:
        """Return the mean levels (C, N * H * W) of four samples of each pixel.

        `rows` (4, N * H * W) are the rows of `looks` that the samples show, and `planes` (2 + TEXTURES, N * H * W) what
        the slopes and strengths of a look are multiplied with. Where two samples of a pixel show the same, their levels
        are the same.
        """
        levels = self._levels(looks, rows[0].long(), planes)
        total = len(rows) * levels
        for others in rows[1:]:
            edge = (others != rows[0]).nonzero().flatten()
            total[:, edge] += self._levels(looks, others[edge].long(), planes[:, edge]) - levels[:, edge]
        return total.div_(len(rows)).clamp_(0, 1)

    def _levels(self, looks: Tensor, rows: Tensor, planes: Tensor) -> Tensor:
        """Return the levels (C, M) of M samples."""
        light = torch.zeros_like(planes[0])
        for strength, plane in zip(looks[self._channels :], planes, strict=True):
            light.addcmul_(strength[rows], plane)
        return torch.stack([(colour[rows] + light).mul_(CONTRAST).sigmoid_() for colour in looks[: self._channels]])
