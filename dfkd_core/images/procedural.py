"""Procedural images: strokes, areas and clouds cut out of smooth random fields.

The images need no trained network and no real image; the teacher labels them like any other image. Baradad, Wulff,
Wang, Isola, Torralba found that such processes can replace photographs: *Learning to See by Looking at Noise*, NeurIPS
2021, https://arxiv.org/abs/2106.05963. The families of images here are our own.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.errors import CheckpointMismatch
from dfkd_core.images.batch import Batch
from dfkd_core.images.image_rows import ImageRows, LeftOut
from dfkd_core.images.refinement import Refining
from dfkd_core.images.reservoir import PixelCodec
from dfkd_core.networks.precision import to_device
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.config import Procedural

BANK_BYTES = 128 * 2**20  # upper limit of images and logits, whatever `capacity` says
UNKNOWN = -1  # the number of an image that cannot be drawn again
LARGE_PLACES = 4096  # images that are kept whatever their size; a bank of large ones lies in a file

CELLS = (2, 3, 4, 6)  # the cells of a field along the image's shorter side, one number for each scale
STROKES, AREAS = 0.7, 0.15  # shares of strokes along a level line and of areas above it; the rest are soft areas
WINDOWED = 0.8  # share of the shapes that are confined to an ellipse
GREY_BRIGHT = 0.15  # share of grey images on a white ground; the others are on black
COLOUR_DARK, COLOUR_BRIGHT = 0.3, 0.1  # shares of colour images on black and on white; the rest have any two colours
GREY_CLOUDED, COLOUR_CLOUDED = 0.1, 0.5  # share of the grounds, and of the figures, that carry clouds
LEAST_SLOPE = 0.02  # added to the slope of a field, per pixel, so that a stroke on flat ground has a finite width


class ProceduralBank:
    """Keeps labelled procedural images in 8 bits, with an equal quota for every class of the teacher.

    The bank is a weighted sample without replacement of all images that it was shown (Efraimidis and Spirakis, 2006,
    algorithm A-Res). An image's weight is the teacher's confidence to the power of `sharpness`. In the course of a run
    the shapes and colours that the teacher recognises therefore displace the others.
    """

    def __init__(self, options: Procedural, teacher: Teacher, *, capacity: int, device: torch.device) -> None:
        self._options = options
        self._teacher = teacher
        self._device = device
        space, classes = teacher.input_space, teacher.num_classes
        self._codec = PixelCodec(*space.bounds())
        place_bytes = math.prod(space.shape) + 2 * classes
        most = max(1, min(capacity, max(LARGE_PLACES, BANK_BYTES // place_bytes)))
        strata = min(classes, most)  # if there are more classes than places, classes share places
        quota = most // strata
        self._keys = torch.full((strata, quota), -math.inf)  # the largest keys stay; -inf marks an empty place
        self._images = ImageRows(strata * quota, space.shape, torch.uint8)
        self._logits = torch.zeros((strata, quota, classes), dtype=torch.float16)
        self._numbers = torch.full((strata, quota), UNKNOWN)  # of the images, in the stream of all drawn ones
        self._missing: LeftOut | None = None  # what the bank was restored without
        self._refining: Refining | None = None  # the images in the making
        self._odds: Tensor | None = None  # the odds of each place, None after the bank has changed

    def __len__(self) -> int:
        return int(self._keys.isfinite().sum())

    def draw(self, count: int, *, generator: torch.Generator) -> Batch:
        """Draw new images in the teacher's valid pixel range, with the teacher's logits."""
        return self._labelled(self._drawn(count, generator))

    def _drawn(self, count: int, generator: torch.Generator) -> Tensor:
        levels = procedural_images(self._teacher.input_space.shape, count, generator=generator, device=self._device)
        return torch.lerp(self._codec.low.to(self._device), self._codec.high.to(self._device), levels)

    def _labelled(self, images: Tensor) -> Batch:
        return Batch(images=images, teacher_logits=self._teacher.label(images))

    def refined(self, count: int, *, generator: torch.Generator) -> Batch:
        """Draw new images, refine them towards soft labels, and return them with the teacher's logits.

        After each step comes a safe point. A resumed bank goes on with the images that it was refining.
        """
        pulse, options = self._teacher.engine.pulse, self._options.refinement
        if self._refining is None:
            images = self._drawn(count, generator)
            self._refining = Refining.begin(self._teacher, images, options, generator=generator)
            pulse.safe_point()
        while not self._refining.finished:
            self._refining.step(generator=generator)
            pulse.did(count / options.steps)
            pulse.safe_point()
        return self._labelled(self._refining.images())

    def weights(self, batch: Batch) -> Tensor:
        """Return each image's weight, (N,) in (0, 1]; an image of which the teacher is certain has weight 1."""
        confidence = batch.teacher_logits.softmax(dim=1).amax(dim=1).cpu().double()
        return confidence**self._options.sharpness

    def add(self, batch: Batch, *, generator: torch.Generator, first: int | None = None) -> None:
        """Show images to the bank; in each class it keeps the images with the largest keys log(u) / weight.

        Images that the bank was refining are among them, or held out: it goes on with new ones. Images that can be
        drawn again stand one after the other in the stream of all drawn images, where the first has the number `first`.
        """
        self._refining = None
        lots = torch.rand(len(batch), generator=generator, dtype=torch.float64)
        keys = (lots.log() / self.weights(batch)).float().clamp(min=torch.finfo(torch.float32).min)
        strata = batch.teacher_logits.argmax(dim=1).cpu() % len(self._keys)
        images, logits = self._codec.encode(batch.images.cpu()), batch.teacher_logits.cpu().half()
        quota = self._keys.shape[1]
        for stratum in sorted(set(strata.tolist())):
            new = (strata == stratum).nonzero().flatten()
            best = torch.cat([self._keys[stratum], keys[new]]).topk(quota).indices
            stays = torch.zeros(quota, dtype=torch.bool)
            stays[best[best < quota]] = True
            entering, free = new[best[best >= quota] - quota], (~stays).nonzero().flatten()
            self._keys[stratum, free] = keys[entering]
            self._images[stratum * quota + free] = images[entering]
            self._logits[stratum, free] = logits[entering]
            self._numbers[stratum, free] = UNKNOWN if first is None else first + entering
        self._odds = None

    def _filled(self) -> Tensor:
        """Return the numbers of the places that hold an image."""
        return self._keys.flatten().isfinite().nonzero().flatten()

    def _balanced(self) -> Tensor:
        """Return the odds of each place, (number of places,); all classes that have images have the same sum."""
        filled = self._keys.isfinite().float()
        return (filled / filled.sum(dim=1, keepdim=True).clamp(min=1)).flatten()

    def sample(self, count: int, *, generator: torch.Generator) -> Batch:
        """Draw `count` kept images with replacement, on the run's device; classes are equally likely."""
        if self._odds is None:
            self._odds = self._balanced()
        places = torch.multinomial(self._odds, count, replacement=True, generator=generator)
        images = self._codec.decode(self._images[places])
        logits = self._logits.flatten(0, 1)[places].float()
        return Batch(images=to_device(images, self._device), teacher_logits=to_device(logits, self._device))

    @property
    def is_incomplete(self) -> bool:
        """True if the bank was restored without its images; they have to be drawn again before the bank is used."""
        return self._missing is not None

    def draw_again(self, first: int, count: int, *, generator: torch.Generator) -> None:
        """Draw `count` images of the stream, the first of which has the number `first`, and take back the kept ones."""
        images, numbers = self._drawn(count, generator), self._numbers.flatten()
        places = ((numbers >= first) & (numbers < first + count)).nonzero().flatten()
        if len(places):
            self._images[places] = self._codec.encode(images[numbers[places] - first].cpu())

    def complete(self) -> None:
        """Check that the images that were drawn again are those that were left out.

        Raises:
            CheckpointMismatch: they are not; another host, or another version, drew them.
        """
        if self._missing != self._images.left_out(self._filled()):
            raise CheckpointMismatch(
                "the procedural images that the checkpoint leaves out are drawn differently here",
                hint="continue on a host with the same build, or start over",
            )
        self._missing = None

    def state(self, *, leave_out: bool = False) -> dict[str, Any]:
        """Return the keys, images, logits and numbers of the bank, and the images in the making.

        With `leave_out`, the images are left out if all of them can be drawn again.
        """
        making = None if self._refining is None else self._refining.state()
        filled = self._filled()
        numbers, images = self._numbers.flatten()[filled], self._missing
        if images is None and leave_out and len(filled) and not (numbers == UNKNOWN).any():
            images = self._images.left_out(filled)
        kept = {"logits": self._logits.flatten(0, 1)[filled], "numbers": numbers}
        return {"keys": self._keys, "images": images or self._images.state(filled), **kept, "making": making}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the `state` of an earlier bank with the same teacher and capacity.

        Checkpoints of earlier versions have no numbers.
        """
        self._keys.copy_(state["keys"])
        filled, images = self._filled(), state["images"]
        self._missing = images if isinstance(images, LeftOut) else None
        if self._missing is None:
            self._images.restore(filled, images)
        self._logits.flatten(0, 1)[filled] = state["logits"]
        self._numbers.flatten()[filled] = state.get("numbers", UNKNOWN)
        self._odds = self._refining = None
        if state["making"] is not None:
            options = self._options.refinement
            self._refining = Refining.resume(self._teacher, state["making"], options, device=self._device)


def procedural_images(
    shape: tuple[int, int, int], count: int, *, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """Draw `count` images (N, C, H, W) with values in [0, 1]. All draws come from `generator`, on the CPU."""
    artist = _Artist(shape[0], (shape[1], shape[2]), generator, device or torch.device("cpu"))
    per_scale = -(-count // len(CELLS))
    masks = torch.cat([artist.shapes(per_scale, cells) for cells in CELLS])
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

    def shapes(self, count: int, cells: int) -> Tensor:
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
