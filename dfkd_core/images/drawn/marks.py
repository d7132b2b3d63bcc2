"""Marks: rows of a few random strokes in two colours, set like lines or pages of writing and seen by a camera.

They are no letters: every picture has some marks of its own, which are repeated along its rows as letters are. They
are for teachers of documents, to which shapes and scenes say little. No network makes them, and no font or image is
looked at.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.images.drawn.draws import Draws

PART_PIXELS = 2**18  # pixels that are drawn at a time, so that they stay in the processor's cache

# Alphabets: marks in cells from 0 to 1 across and down
MARKS, STROKES = 12, 5  # in an alphabet, and the most in a mark
SHARED = 4  # pictures to an alphabet; each turns it in one of four ways, and sets it in its own way
POINTS, TILE = 24, 24  # of a stroke, and of a side of the grid on which the distance to the strokes is known
INSIDE = 0.05  # the least distance of the strokes' ends from the edge of the cell
SHORTEST, FARTHEST = 0.35, 0.65  # how far the end of a stroke is from its begin, across and down, around the cell
LEVEL = 0.8  # share of the straight strokes that are upright or level
COLUMNS, ROWS = (0.1, 0.5, 0.9), (0.05, 0.35, 0.65, 0.95)  # where the strokes of half of the alphabets end
JITTER = 0.04  # the largest distance from there

# Pages: lengths in heights of a row where nothing else is said
LEAST_ROW, MOST_ROWS = 8, 20  # pixels from one row to the next, and rows in a picture
LONG = 1.5  # ratio of the sides from which on all rows run along the longer one
CELLS = 64  # in a row
STEPS = 4  # places to a pixel at which the cells of a row are known
PADDED = 0.3  # share of the pictures that end before the longer side does

MOST_TILT, MOST_SLANT, SLANTED = math.radians(2), 0.25, 0.3  # turn, slant of the marks, and share of slanted pictures
LIGHT_ON_DARK, LEAST_CONTRAST, TINT = 1 / 6, 0.3, 0.2  # share; least difference of the brightness; of the channels
MOST_SHADE, MOST_NOISE = 0.2, 0.05  # uneven light, relative, and standard deviation of the noise
MOST_BLUR, BLUR_OF_ROW = 1.6, 0.07  # the largest standard deviation of the blur, in pixels and in heights of a row
RADIUS = 4  # pixels either way that a blurred pixel mixes


def marks(
    shape: tuple[int, int, int], count: int, *, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """Draw `count` pictures (N, C, H, W) with values in [0, 1]. All draws come from `generator`, on the CPU."""
    writer = _Writer(shape, generator, device or torch.device("cpu"))
    at_once = max(1, PART_PIXELS // (shape[1] * shape[2]))
    return torch.cat([writer.pictures(min(at_once, count - first)) for first in range(0, count, at_once)])


@dataclass(frozen=True, slots=True)
class _Pages:
    """How the rows of N pictures lie, each value (N,) on the CPU. Lengths are in pixels."""

    angle: Tensor  # of the rows against the picture's rows
    along: Tensor  # length of the picture along its rows
    across: Tensor
    pitch: Tensor  # from one row to the next
    height: Tensor  # of a row
    margin: Tensor  # around the rows
    slant: Tensor  # by how much the top of a mark is moved, in heights


class _Writer:
    """Draws pictures of one shape; it holds the random generator and the device."""

    def __init__(self, shape: tuple[int, int, int], generator: torch.Generator, device: torch.device) -> None:
        self._channels, *self._size = shape
        self._draws = Draws(generator)
        self._device = device

    def pictures(self, count: int) -> Tensor:
        """Draw `count` pictures (N, C, H, W)."""
        pages = self._pages(count)
        ink = self._blurred(self._ink(pages), pages)
        figure, ground = (self._tinted(brightness) for brightness in self._brightness(count))
        levels = torch.lerp(ground, figure, ink) * self._shade(count)
        noise = self._draws.normal(count, self._channels, *self._size) * self._draws.uniform(
            0, MOST_NOISE, count, 1, 1, 1
        )
        return self._padded(levels.add_(noise.to(self._device)).clamp_(0, 1))

    # Alphabets

    def _alphabets(self, count: int) -> Tensor:
        """Draw alphabets: the distance from each point of each mark's cell to its strokes, (count * MARKS, TILE, TILE).

        Distances are in sides of the cell.
        """
        size = count, MARKS, STROKES
        ordered = self._draws.chance(0.5, count, 1, 1, 1)
        ends = zip(self._at_crossings(*size), self._anywhere(*size), strict=True)
        begin, end = (torch.where(ordered, *either) for either in ends)
        straight = self._draws.chance(self._draws.uniform(0.3, 0.9, count, 1, 1, 1), *size, 1)
        level = straight & self._draws.chance(LEVEL, *size, 1)
        fixed = self._draws.whole(2, *size, 1) == torch.arange(2)
        end = torch.where(level & fixed, begin, end)
        bend = torch.where(straight, (begin + end) / 2, self._draws.uniform(INSIDE, 1 - INSIDE, *size, 2))
        t = torch.linspace(0, 1, POINTS)[:, None]
        begin, bend, end = (place.unsqueeze(3) for place in (begin, bend, end))
        points = (1 - t).square() * begin + 2 * t * (1 - t) * bend + t.square() * end
        most = self._draws.uniform(1, STROKES, count, 1, 1)
        drawn = torch.arange(STROKES) < most * self._draws.uniform(0, 1, count, MARKS, 1).sqrt()
        points = torch.where(drawn[..., None, None], points, points[:, :, :1]).flatten(0, 1).flatten(1, 2)
        low, high = self._bodies(count)
        points[..., 1] = low[:, None] + (high - low)[:, None] * points[..., 1]
        side = torch.linspace(0, 1, TILE)
        grid = torch.stack([side.expand(TILE, TILE), side[:, None].expand(TILE, TILE)], dim=2).view(1, -1, 2)
        return _distances(grid.to(self._device), points.to(self._device)).view(-1, TILE, TILE)

    def _anywhere(self, *size: int) -> tuple[Tensor, Tensor]:
        """Draw where strokes begin and end, (*size, 2) each: across and down the cell."""
        begin, span = self._draws.uniform(0, 1, *size, 2), 1 - 2 * INSIDE
        end = (begin + self._draws.uniform(SHORTEST, FARTHEST, *size, 2)) % 1
        return INSIDE + span * begin, INSIDE + span * end

    def _at_crossings(self, *size: int) -> tuple[Tensor, Tensor]:
        """Draw where strokes begin and end, (*size, 2) each, near the crossings of a few columns and rows."""
        begin, end = [], []
        for lines in (torch.tensor(COLUMNS), torch.tensor(ROWS)):
            first = self._draws.whole(len(lines), *size)
            begin.append(lines[first])
            end.append(lines[(first + 1 + self._draws.whole(len(lines) - 1, *size)) % len(lines)])
        jitter = self._draws.uniform(-JITTER, JITTER, 2, *size, 2)
        return torch.stack(begin, dim=-1) + jitter[0], torch.stack(end, dim=-1) + jitter[1]

    def _bodies(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw from where to where in its cell each mark reaches down, (count * MARKS,) each.

        Most marks of an alphabet lie between two lines, and some go beyond either.
        """
        size = count, MARKS
        tall = self._draws.uniform(0, 1, count, 1) ** 2
        low = torch.where(
            self._draws.chance(torch.lerp(tall, torch.ones(()), 0.2), *size),
            0.0,
            self._draws.uniform(0.1, 0.4, count, 1),
        )
        high = torch.where(
            self._draws.chance(torch.lerp(tall, torch.ones(()), 0.2), *size),
            1.0,
            self._draws.uniform(0.7, 0.9, count, 1),
        )
        return low.flatten(), high.flatten()

    # Pages

    def _pages(self, count: int) -> _Pages:
        height, width = (float(side) for side in self._size)
        upright = torch.full((count,), width >= height)
        if max(height, width) < LONG * min(height, width):
            upright = self._draws.chance(0.5, count)
        turns = 2 * self._draws.whole(2, count) + ~upright
        along, across = torch.where(upright, width, height), torch.where(upright, height, width)
        most = (across / LEAST_ROW * (across / along).clamp(max=1)).round().clamp(1, MOST_ROWS)
        rows = ((most + 1).log() * self._draws.uniform(0, 1, count)).exp().floor().clamp(max=MOST_ROWS)
        margin = self._draws.uniform(0.0, 0.1, count) * across * (rows > 1)
        pitch = (across - 2 * margin) / rows
        return _Pages(
            angle=turns * (math.pi / 2) + self._draws.uniform(-MOST_TILT, MOST_TILT, count),
            along=along,
            across=across,
            pitch=pitch,
            height=pitch / self._draws.uniform(1.05, 1.8, count),
            margin=margin,
            slant=self._draws.uniform(-MOST_SLANT, MOST_SLANT, count) * self._draws.chance(SLANTED, count),
        )

    def _ink(self, pages: _Pages) -> Tensor:
        """Draw how much of each pixel is ink, (N, 1, H, W) in [0, 1]."""
        count = len(pages.angle)
        alphabets = -(-count // SHARED)
        tiles = self._alphabets(alphabets)
        chosen = torch.arange(count) % alphabets
        shares, numbers = self._rows(pages, chosen)  # (N, MOST_ROWS, X)
        thickness = self._draws.uniform(0.03, 0.16, count)
        mirrored = self._draws.chance(0.5, 2, count)

        def each(values: Tensor) -> Tensor:
            return values.to(self._device)[:, None, None]

        down, across = (torch.arange(side, device=self._device) + 0.5 - side / 2 for side in self._size)
        sine, cosine = each(pages.angle.sin()), each(pages.angle.cos())
        y = cosine * down[:, None] - sine * across + each(pages.across / 2 - pages.margin)
        x = cosine * across + sine * down[:, None] + each(pages.along / 2)
        row = (y / each(pages.pitch)).floor()
        within = (y - (row + 0.5) * each(pages.pitch)) / each(pages.height) + 0.5  # from 0 to 1 down a row
        x = x + (within - 0.5) * each(pages.slant * pages.height)
        step = (x * STEPS).long().clamp_(0, shares.shape[2] - 1)
        rows = row.long().clamp_(0, MOST_ROWS - 1)
        place = (torch.arange(count, device=self._device)[:, None, None] * MOST_ROWS + rows) * shares.shape[2] + step
        share, number = shares.flatten()[place], numbers.flatten()[place]
        there = (within >= 0) & (within <= 1) & (share >= 0) & (share <= 1)
        there &= (y >= 0) & (y < each(pages.across - 2 * pages.margin))
        share = torch.where(each(mirrored[0]), 1 - share, share)
        within = torch.where(each(mirrored[1]), 1 - within, within)
        depth = (number * TILE + within.clamp(0, 1) * (TILE - 1) + 0.5) / (len(tiles) * TILE)
        grid = torch.stack([(share.clamp(0, 1) * (TILE - 1) + 0.5) / TILE, depth], dim=3) * 2 - 1
        atlas = tiles.view(1, 1, -1, TILE)
        distance = F.grid_sample(atlas, grid.view(1, -1, self._size[1], 2), align_corners=False, padding_mode="border")
        beyond = each(thickness / 2) - distance.view(count, *self._size)
        return ((beyond * (4 * each(pages.height))).sigmoid_() * there).unsqueeze(1)

    def _rows(self, pages: _Pages, alphabets: Tensor) -> tuple[Tensor, Tensor]:
        """Set the rows: at each place of each row, how far across its cell it lies, and which mark is there.

        Both are (N, MOST_ROWS, X), with STEPS places to a pixel. Where nothing is written the share is -1.
        """
        count, size = len(alphabets), (len(alphabets), MOST_ROWS, CELLS)
        marks_ = self._draws.whole(MARKS, *size)
        typical = self._draws.uniform(0.35, 1.1, count, 1)
        own = 1 + self._draws.uniform(-0.4, 0.4, count, MARKS) * self._draws.chance(0.5, count, 1)
        breadths = (typical * own)[torch.arange(count)[:, None, None], marks_] * pages.height[:, None, None]
        gaps = (self._draws.uniform(0.03, 0.3, count) * pages.height)[:, None, None]
        blank = self._draws.chance(self._draws.uniform(0.03, 0.25, count, 1, 1), *size)
        indent = (
            self._draws.uniform(0.0, 0.1, count, 1)
            * pages.along[:, None]
            * (1 + self._draws.chance(0.15, count, MOST_ROWS))
        )
        short = torch.where(
            self._draws.chance(0.2, count, MOST_ROWS), self._draws.uniform(0.1, 1.0, count, MOST_ROWS), 1.0
        )
        ends = pages.along[:, None] * (1 - self._draws.uniform(0.0, 0.1, count, 1)) * short
        ends = ends * ~(self._draws.chance(0.1, count, MOST_ROWS) & (pages.pitch < 0.4 * pages.across)[:, None])
        steps = breadths + gaps
        starts = steps.cumsum(dim=2) - steps + indent.unsqueeze(2)
        places = (torch.arange(max(self._size) * STEPS) + 0.5) / STEPS
        cell = torch.searchsorted(starts, places.expand(*size[:2], -1).contiguous(), right=True) - 1
        first = cell.clamp(min=0)
        share = (places - starts.gather(2, first)) / breadths.gather(2, first)
        empty = (cell < 0) | blank.gather(2, first) | (places > ends.unsqueeze(2))
        numbers = alphabets[:, None, None] * MARKS + marks_.gather(2, first)
        return torch.where(empty, -1.0, share).to(self._device), numbers.to(self._device)

    # The camera

    def _brightness(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw how bright the ink and the paper of each picture are, (N,) each."""
        dark = self._draws.uniform(0, 1 - LEAST_CONTRAST, count) ** 2
        light = torch.lerp(dark + LEAST_CONTRAST, torch.ones(count), self._draws.uniform(0, 1, count) ** 0.5)
        inverse = self._draws.chance(LIGHT_ON_DARK, count)
        return torch.where(inverse, light, dark), torch.where(inverse, dark, light)

    def _tinted(self, brightness: Tensor) -> Tensor:
        """Draw colours (N, C, 1, 1) near a brightness (N,)."""
        tint = self._draws.uniform(-TINT, TINT, len(brightness), self._channels) * self._draws.chance(
            0.5, len(brightness), 1
        )
        colours = brightness[:, None] + (tint - tint.mean(dim=1, keepdim=True))
        return colours.clamp(0, 1)[:, :, None, None].to(self._device)

    def _shade(self, count: int) -> Tensor:
        """Draw factors (N, 1, H, W) of an uneven light."""
        shade = torch.ones((count, 1, 1, 1), device=self._device)
        for axis, side in enumerate(self._size):
            line = torch.linspace(-1, 1, side, device=self._device).view(-1, *[1] * (1 - axis))
            shade = shade + self._draws.uniform(-MOST_SHADE, MOST_SHADE, count, 1, 1, 1).to(self._device) * line
        return shade

    def _blurred(self, ink: Tensor, pages: _Pages) -> Tensor:
        """Blur (N, 1, H, W) by Gaussians, each picture by its own."""
        most = (BLUR_OF_ROW * pages.height).clamp(max=MOST_BLUR)
        deviation = (most * self._draws.uniform(0, 1, len(most))).clamp(min=1e-3)[:, None]
        offsets = torch.arange(-RADIUS, RADIUS + 1)
        weights = (-offsets.square() / (2 * deviation.square())).exp()
        weights = (weights / weights.sum(dim=1, keepdim=True)).to(self._device)[..., None, None, None]
        for axis, side in ((2, self._size[0]), (3, self._size[1])):
            padding = (0, 0, RADIUS, RADIUS) if axis == 2 else (RADIUS, RADIUS, 0, 0)
            padded = F.pad(ink, padding, mode="replicate")
            ink = sum(
                (weights[:, number] * padded.narrow(axis, number, side) for number in range(len(offsets))),
                start=torch.zeros(()),
            )
        return ink

    def _padded(self, levels: Tensor) -> Tensor:
        """Let some pictures end before the longer side does, as those that were scaled to fit do."""
        count, (height, width) = len(levels), self._size
        axis = 3 if width >= height else 2
        side = max(height, width)
        last = torch.where(self._draws.chance(PADDED, count), self._draws.uniform(0.25, 1.0, count), 1.0) * side
        colour = (self._draws.whole(3, count) / 2).to(self._device)[:, None, None, None]
        places = torch.arange(side, device=self._device).view(-1, *[1] * (3 - axis))
        return torch.where(places < last.to(self._device)[:, None, None, None], levels, colour)


def _distances(places: Tensor, points: Tensor) -> Tensor:
    """Return the distance from each place (1, M, 2) to the nearest of points (N, P, 2), (N, M)."""
    products = places @ points.transpose(1, 2)
    squares = points.square().sum(dim=2).unsqueeze(1) - 2 * products
    nearest = squares.amin(dim=2) + places.square().sum(dim=2)
    return nearest.clamp(min=0).sqrt()
