"""Figures: one or two strokes of a pen, as signs and digits are written, and the points by which they can be changed.

They are no letters and no digits: a stroke turns at random, sometimes sharply. A figure is known by the points of its
strokes, its colours and the thickness of its pen, and its picture can be differentiated by all of them. So a teacher
can say how a figure has to change to be taken for a class (`methods.parts.figure_start`), as Li et al. move the curves
of a drawing: *Differentiable Vector Graphics Rasterization for Editing and Learning*, ACM Transactions on Graphics
2020, https://doi.org/10.1145/3414685.3417871. No network makes the figures, and no font or image is looked at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dfkd_core.images.drawn.draws import Draws

AT_ONCE = 256  # figures whose pictures are computed at a time
COMPARED = 2**22  # distances that are compared at a time to find the nearest part of a line
STROKES, POINTS = 2, 8  # of a figure, and of a stroke; a stroke that ends early has its last points in one place
SECOND = 0.4  # share of the figures that have a second stroke
CORNERS, STRAIGHT = 0.2, 0.3  # share of the points where a stroke turns sharply, and of the strokes that hardly bend
TURN, WAVER, SHARP = 1.6, 1.2, 2.6  # the most that a stroke turns at a point: all along, now and then, at a corner
SIZE, NARROWEST = (0.5, 0.85), 0.6  # of a figure, in shorter sides of the picture, and its least breadth to its height
OFF_CENTRE, EDGE = 0.06, 0.02  # most from the centre, and least from the edge, in shorter sides
PEN, LEAST_PEN, MOST_PEN = (0.04, 0.085), 0.02, 0.12  # half the thickness as drawn, and its limits, in shorter sides
SOFTNESS = (1.5, 4.0)  # by how much the ink changes from one pixel to the next
LIGHT = (0.85, 1.0)  # brightness of the ink of grey figures, on black
BEND_STEPS = 5  # places at which the bend at a point of a stroke is computed
EPSILON = 1e-4  # square of a pixel; keeps the slope of a distance finite


@dataclass(slots=True)
class Figures:
    """N figures. Places and lengths are in shorter sides of the picture, places from its centre, across and down."""

    size: tuple[int, int]  # height and width of the pictures
    points: Tensor  # (N, STROKES, POINTS, 2)
    pen: Tensor  # (N,), half the thickness
    softness: Tensor  # (N,)
    ink: Tensor  # (N, C), in [0, 1]
    ground: Tensor  # (N, C), in [0, 1]

    @staticmethod
    def drawn(shape: tuple[int, int, int], count: int, *, generator: torch.Generator) -> "Figures":
        """Draw `count` figures for pictures of `shape` (C, H, W): light on black in grey, of any colours in colour."""
        draws, channels = Draws(generator), shape[0]
        ink, ground = (draws.uniform(0, 1, count, channels) for _ in range(2))
        if channels == 1:
            ink, ground = draws.uniform(*LIGHT, count, 1), torch.zeros(count, 1)
        return Figures(
            size=shape[1:],
            points=_placed(_strokes(draws, count), draws),
            pen=draws.uniform(*PEN, count),
            softness=draws.uniform(*SOFTNESS, count),
            ink=ink,
            ground=ground,
        )

    @staticmethod
    def join(parts: Sequence["Figures"]) -> "Figures":
        """Return the figures of all parts, one part after the other."""
        states = [part.state() for part in parts]
        return Figures(size=parts[0].size, **{name: torch.cat([each[name] for each in states]) for name in states[0]})

    @staticmethod
    def of(state: Mapping[str, Tensor], *, size: tuple[int, int], device: torch.device) -> "Figures":
        """Return figures by the `state` of earlier ones."""
        return Figures(size=size, **{name: value.to(device, copy=True) for name, value in state.items()})

    def to(self, device: torch.device) -> "Figures":
        """Return the figures on a device."""
        return Figures.of(self.state(), size=self.size, device=device)

    def take(self, numbers: Sequence[int]) -> "Figures":
        """Return the figures of these numbers, in their order."""
        return Figures(size=self.size, **{name: value[list(numbers)] for name, value in self.state().items()})

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of the figures, detached."""
        return {each.name: getattr(self, each.name).detach() for each in fields(self) if each.name != "size"}

    @torch.no_grad()
    def project(self) -> None:
        """Put points back into the picture, and colours and pens within their limits, in place."""
        shorter = min(self.size)
        for axis, side in enumerate(reversed(self.size)):
            most = side / shorter / 2 - EDGE
            self.points[..., axis].clamp_(-most, most)
        self.pen.clamp_(LEAST_PEN, MOST_PEN)
        self.ink.clamp_(0, 1)

    def pictures(self) -> Tensor:
        """Return the pictures (N, C, H, W) in [0, 1], differentiable with respect to points, pens and colours."""
        (height, width), shorter = self.size, min(self.size)
        line = _bent(self.points) * shorter  # (N, M, 2), in pixels
        down, across = (torch.arange(side, device=line.device) + 0.5 - side / 2 for side in self.size)
        places = torch.stack([across.expand(height, width), down[:, None].expand(height, width)], dim=2).view(1, -1, 2)
        distance = _distances(places, line).view(-1, 1, height, width)
        beyond = self.pen.view(-1, 1, 1, 1) * shorter - distance
        ink = (beyond * self.softness.view(-1, 1, 1, 1)).sigmoid()
        return torch.lerp(self.ground[:, :, None, None], self.ink[:, :, None, None], ink)


def figures(
    shape: tuple[int, int, int], count: int, *, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """Draw `count` pictures (N, C, H, W) with values in [0, 1]. All draws come from `generator`, on the CPU."""
    parts = (min(AT_ONCE, count - first) for first in range(0, count, AT_ONCE))
    drawn = (Figures.drawn(shape, part, generator=generator) for part in parts)
    return torch.cat([each.to(device or torch.device("cpu")).pictures() for each in drawn])


def _strokes(draws: Draws, count: int) -> Tensor:
    """Draw the points (N, STROKES, POINTS, 2) of strokes, of any size. One stroke alone is there twice."""
    size, steps = (count, STROKES), POINTS - 1
    turns = draws.uniform(-TURN, TURN, *size, 1)
    turns = turns + draws.uniform(-WAVER, WAVER, *size, steps - 1) * draws.uniform(0, 1, *size, 1)
    turns = turns * torch.where(draws.chance(STRAIGHT, *size, 1), 0.1, 1.0)
    turns = turns + draws.uniform(-SHARP, SHARP, *size, steps - 1) * draws.chance(CORNERS, *size, steps - 1)
    heading = draws.uniform(0, 2 * math.pi, *size, 1) + torch.cat([torch.zeros(*size, 1), turns.cumsum(dim=2)], dim=2)
    length = draws.uniform(0.4, 1.4, *size, steps)
    used = torch.stack([2 + draws.whole(steps - 1, count), 1 + draws.whole(3, count)], dim=1)  # steps of each stroke
    length = length * (torch.arange(steps) < used.unsqueeze(2))
    moves = torch.stack([heading.cos(), heading.sin()], dim=3) * length.unsqueeze(3)
    first, second = torch.cat([torch.zeros(*size, 1, 2), moves.cumsum(dim=2)], dim=2).unbind(dim=1)
    begin = (draws.uniform(0, 1, count) * used[:, 0]).long()
    second = second * draws.uniform(0.6, 1.3, count, 1, 1) + first[torch.arange(count), begin].unsqueeze(1)
    second = torch.where(draws.chance(SECOND, count, 1, 1), second, first)
    return torch.stack([first, second], dim=1)


def _placed(points: Tensor, draws: Draws) -> Tensor:
    """Return the strokes (N, STROKES, POINTS, 2) at the size and place that they have in the picture."""
    count = len(points)
    low, high = points.amin(dim=(1, 2), keepdim=True), points.amax(dim=(1, 2), keepdim=True)
    span = (high - low).amax(dim=3, keepdim=True)
    points = (points - (low + high) / 2) / span * draws.uniform(*SIZE, count, 1, 1, 1)
    narrowed = torch.cat([draws.uniform(NARROWEST, 1, count, 1, 1, 1), torch.ones(count, 1, 1, 1)], dim=3)
    return points * narrowed + draws.uniform(-OFF_CENTRE, OFF_CENTRE, count, 1, 1, 2)


def _bent(points: Tensor) -> Tensor:
    """Return the lines (N, M, 2) of the strokes: quadratic curves from the middle of one side to that of the next."""
    middle = (points[:, :, 1:] + points[:, :, :-1]) / 2
    begin = torch.cat([points[:, :, :1], middle[:, :, 1:-1]], dim=2).unsqueeze(3)
    end = torch.cat([middle[:, :, 1:-1], points[:, :, -1:]], dim=2).unsqueeze(3)
    bend = points[:, :, 1:-1].unsqueeze(3)
    t = torch.linspace(0, 1, BEND_STEPS, device=points.device)[:, None]
    return ((1 - t).square() * begin + 2 * t * (1 - t) * bend + t.square() * end).flatten(1, 3)


def _distances(places: Tensor, line: Tensor) -> Tensor:
    """Return the distance from each place (1, P, 2) to the nearest part of a line (N, M, 2) of STROKES strokes, (N, P).

    Which part is nearest is found first, so that each place has the gradient of one part alone.
    """
    with torch.no_grad():
        lines = torch.split(line, max(1, COMPARED // (places.shape[1] * line.shape[1])))
        nearest = torch.cat([_nearest(places, each) for each in lines])
        length = line.shape[1] // STROKES
        before = torch.where(nearest % length == 0, nearest, nearest - 1)
        after = torch.where(nearest % length == length - 1, nearest, nearest + 1)
    start = _taken(line, nearest)
    one, other = (_to_segment(places - start, _taken(line, end) - start) for end in (before, after))
    return (torch.minimum(one, other) + EPSILON).sqrt()


def _nearest(places: Tensor, line: Tensor) -> Tensor:
    """Return the number of the point of a line (N, M, 2) that is nearest to each place (1, P, 2), (N, P)."""
    squares = line.square().sum(dim=2).unsqueeze(1) - 2 * places @ line.transpose(1, 2)
    return squares.argmin(dim=2)


def _taken(line: Tensor, numbers: Tensor) -> Tensor:
    """Return the points (N, P, 2) of a line (N, M, 2) that have the numbers (N, P)."""
    return line.gather(1, numbers.unsqueeze(2).expand(-1, -1, 2))


def _to_segment(place: Tensor, segment: Tensor) -> Tensor:
    """Return the squared distance of places to segments, both (N, P, 2) from where the segment starts, (N, P)."""
    share = (place * segment).sum(dim=2) / (segment.square().sum(dim=2) + EPSILON)
    return (place - share.clamp(0, 1).unsqueeze(2) * segment).square().sum(dim=2)
