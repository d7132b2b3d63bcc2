"""Procedural images: pictures that a program draws at random, and the bank in which they are kept.

The images need no trained network and no real image; the teacher labels them like any other image. `kinds.py` lists
what can be drawn.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dfkd_core.errors import CheckpointMismatch
from dfkd_core.images.batch import Batch
from dfkd_core.images.drawn.kinds import KINDS
from dfkd_core.images.image_rows import ImageRows, LeftOut
from dfkd_core.images.refinement import Refining
from dfkd_core.images.reservoir import PixelCodec
from dfkd_core.networks.precision import to_device
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.kinds import KindName
from dfkd_core.planning.sizes import procedural_places
from dfkd_core.spec.config import Procedural

UNKNOWN = -1  # the number of an image that cannot be drawn again


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
        most = procedural_places(capacity, pixels=math.prod(space.shape), num_classes=classes)
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
        shape, kinds = self._teacher.input_space.shape, self._options.kinds
        levels = procedural_images(shape, count, kinds=kinds, generator=generator, device=self._device)
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
    shape: tuple[int, int, int],
    count: int,
    *,
    kinds: Sequence[KindName] = ("shapes",),
    generator: torch.Generator,
    device: torch.device | None = None,
) -> Tensor:
    """Draw `count` images (N, C, H, W) with values in [0, 1]; each is of any of the kinds, which are equally likely.

    All draws come from `generator`, on the CPU.
    """
    if len(kinds) == 1:
        return KINDS[kinds[0]](shape, count, generator=generator, device=device)
    images = torch.empty((count, *shape), device=device)
    lots = torch.randint(len(kinds), (count,), generator=generator)
    for number, kind in enumerate(kinds):
        places = (lots == number).nonzero().flatten()
        if len(places):
            drawn = KINDS[kind](shape, len(places), generator=generator, device=device)
            images[places.to(images.device)] = drawn
    return images
