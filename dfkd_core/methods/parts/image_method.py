"""ImageMethod: optimises images batch by batch. A method composes it of a start, targets and terms.

start    what is optimised, and where it begins: pixels, or the weights and codes of a generator    (image_starts)
targets  which probabilities the teacher shall give the images                                       (Targets)
terms    what the loss is made of                                                                    (image_terms)
parts    what the method keeps from batch to batch                                                   (part)
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.methods.parts.image_parameters import ImageParameters
from dfkd_core.methods.parts.image_starts import Start
from dfkd_core.methods.parts.image_terms import Step, Term
from dfkd_core.methods.parts.inversion import Inversion
from dfkd_core.methods.parts.part import Part
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.networks import losses
from dfkd_core.networks.hooks import buffers_kept_on_error, evaluating
from dfkd_core.networks.teacher import Observation, Teacher
from dfkd_core.options.images import COARSE_COST, ImageOptions

FLIPPED = 0.5  # share of the steps that see the batch mirrored

Targets = Callable[[int], Tensor]
"""Number of images → what the teacher shall say of them: probabilities (N, num_classes)."""


class Reader(Protocol):
    """Images (N, C, H, W) → the teacher's logits, and what else a method reads of its forward."""

    def __call__(self, images: Tensor, *, moments: bool = False) -> Observation: ...


class ImageMethod(Synthesizer):
    """Makes one batch of images at each update; `sample` returns each image once."""

    optimises_images: ClassVar[bool] = True

    def __init__(
        self,
        options: ImageOptions,
        teacher: Teacher,
        *,
        start: Start,
        targets: Targets,
        terms: Sequence[Term],
        draws: torch.Generator,
        device: torch.device,
        parts: Sequence[Part] = (),
        reader: Reader | None = None,
        past: PastStatistics | None = None,
        coarse_steps: int = 0,
    ) -> None:
        """`coarse_steps` is the number of steps at half the height and width, before the steps in full size."""
        self._options = options
        self._teacher = teacher
        self._start = start
        self._targets = targets
        self._terms = terms
        self._draws = draws
        self._device = device
        self._parts = [*([] if past is None else [past]), start, *parts]
        self._reader: Reader = reader or teacher.observe
        self._past = past
        self._coarse_steps = coarse_steps
        self._matches_batchnorm = options.bn_weight > 0 and "batchnorm" in teacher.offers
        self._pulse, self._chunk = teacher.engine.pulse, teacher.engine.compute.chunk
        self._inversion: Inversion | None = None  # the chunk in the making
        self._made = 0  # images of the batch in the making that are finished
        self._feedback_factor = 1.0
        self._unseen = torch.zeros((0, *teacher.input_space.shape), device=device)  # images not given yet

    @property
    def asked(self) -> Teacher:
        """The teacher that inverts."""
        return self._teacher

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """Make one batch, or what is left of it. `rate` is ignored: each batch has its own schedule, and late images
        need their steps too.

        The images are made in chunks of at most `compute.chunk`. After each step comes a safe point.
        """
        reported: dict[str, Tensor] = {}
        while self._made < self._options.batch_size:
            with evaluating(student) if student is not None else nullcontext():
                if self._inversion is None:
                    self._inversion = self._begin(student)
                    self._pulse.safe_point()
                inversion = self._optimised(self._inversion, student)
            reported = inversion.losses
            self._finish(inversion)
            if self._made < self._options.batch_size:
                self._pulse.safe_point()
        self._made = 0
        return reported

    def _begin(self, student: nn.Module | None) -> Inversion:
        """Begin the next chunk of the batch."""
        reported = {name: loss for part in self._parts for name, loss in part.prepare(student).items()}
        chunk = self._chunk or self._options.batch_size
        targets = self._targets(min(chunk, self._options.batch_size - self._made))  # (N, num_classes)
        inversion = self._new_inversion(targets, self._start.begin(targets))
        inversion.losses = reported
        return inversion

    def _new_inversion(self, targets: Tensor, parameters: ImageParameters) -> Inversion:
        more = [group for part in self._parts for group in part.groups]
        steps = self._coarse_steps if parameters.is_coarse else self._options.steps
        return Inversion(self._options, parameters, targets, steps=steps, more=more)

    def _optimised(self, inversion: Inversion, student: nn.Module | None) -> Inversion:
        """Take the steps that are left, and return the inversion of the images in full size."""
        while True:
            while not inversion.finished:
                self._step(inversion, student)
            if not inversion.parameters.is_coarse:
                return inversion
            reported = inversion.losses
            inversion = self._inversion = self._new_inversion(inversion.targets, inversion.parameters.enlarged())
            inversion.losses = reported

    def _step(self, inversion: Inversion, student: nn.Module | None) -> None:
        """Take one step. The student sees no coarse images: it may take none of another size than its own."""
        parameters = inversion.parameters
        student = None if parameters.is_coarse else student
        with buffers_kept_on_error(*inversion.networks):
            images = inversion.images()  # (N, C, H, W)
            terms = self._weighted_terms(self._look(self._augment(images), inversion.targets, student))
            inversion.step(images, losses.weighted_sum(terms))
        inversion.losses |= {name: value.detach() for name, (_weight, value) in terms.items()}
        steps = self._options.steps + COARSE_COST * self._coarse_steps * parameters.begins_coarse
        self._pulse.did(len(inversion) * (COARSE_COST if parameters.is_coarse else 1) / steps)
        self._pulse.safe_point()

    def _finish(self, inversion: Inversion) -> None:
        images = inversion.result()
        with self._pulse.undisturbed():  # parts take in an image only once
            for part in self._parts:
                part.finish(images, inversion.targets)
        self._unseen = torch.cat([self._unseen, images])
        self._made += len(images)
        self._inversion = None

    def _augment(self, images: Tensor) -> Tensor:
        """Move images (N, C, H, W), and sometimes mirror them, for teacher and student in one step."""
        if self._options.flip and float(torch.rand((), generator=self._draws)) < FLIPPED:
            images = images.flip(3)
        return shifted(images, self._options.shift, generator=self._draws)

    def _look(self, images: Tensor, targets: Tensor, student: nn.Module | None) -> Step:
        """Run the teacher once, and measure the distance to its BatchNorm statistics if the distance has a weight."""
        seen = self._reader(images, moments=self._matches_batchnorm)
        distance = None
        if self._matches_batchnorm:
            moments = seen.moments if self._past is None else self._past.blended(seen.moments)
            distance = losses.batchnorm_distance(moments)
        return Step(images, targets, seen.logits, seen.features, distance, student)

    def _weighted_terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        """Return weight and value of each term by name, without terms whose value is None."""
        found = {}
        for term in self._terms:
            value = None if term.of_student and step.student is None else term.loss(step)
            if value is not None:
                found[term.name] = (term.weight * self._feedback_factor if term.of_student else term.weight, value)
        return found

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Return at most `count` of the oldest images that were not returned yet; each image is returned once."""
        given, self._unseen = self._unseen[:count], self._unseen[count:]
        return given

    def restart(self) -> None:
        """Drop the images that were not given yet; every part forgets what it knows."""
        self._inversion, self._made = None, 0
        self._unseen = self._unseen[:0]
        for part in self._parts:
            part.restart()

    def back_off(self) -> None:
        """Halve the weight of the student's feedback, because no other term can make images collapse."""
        self._feedback_factor /= 2

    def state(self) -> dict[str, Any]:
        """Return the images that were not returned yet, those in the making, and the state of the parts."""
        making = None if self._inversion is None else self._inversion.state()
        own = {"unseen": self._unseen, "calmed": self._feedback_factor, "batch_made": self._made, "making": making}
        return own | {name: value for part in self._parts for name, value in part.state().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier method."""
        self._unseen = state["unseen"].to(self._device).clone()
        self._feedback_factor, self._made = state["calmed"], state["batch_made"]
        self._inversion = None if state["making"] is None else self._resumed(state["making"])
        for part in self._parts:
            part.restore(state)

    def _resumed(self, state: Mapping[str, Any]) -> Inversion:
        """Return the inversion of an earlier method. Draws are lost, and parts change, until they are restored too."""
        targets = state["targets"].to(self._device)
        inversion = self._new_inversion(targets, self._start.resume(targets, state["parameters"]))
        inversion.restore(state)
        return inversion


class ClassTargets:
    """Draws classes as one-hot targets; all classes occur equally often."""

    def __init__(self, num_classes: int, *, draws: torch.Generator, device: torch.device) -> None:
        self._num_classes = num_classes
        self.draws = draws
        self._device = device

    def __call__(self, count: int) -> Tensor:
        """Draw one-hot rows (count, num_classes)."""
        return F.one_hot(self.classes(count), self._num_classes).float()

    def classes(self, count: int) -> Tensor:
        """Draw classes (count,) as consecutive random permutations of all classes."""
        rounds = [
            torch.randperm(self._num_classes, generator=self.draws) for _ in range(-(-count // self._num_classes))
        ]
        return torch.cat(rounds)[:count].to(self._device)


def shifted(images: Tensor, most: int, *, generator: torch.Generator) -> Tensor:
    """Move all images by one random offset of at most `most` pixels, and repeat their edges."""
    if not most:
        return images
    height, breadth = images.shape[2:]
    down, across = torch.randint(2 * most + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (most, most, most, most), mode="replicate")
    return padded[:, :, down : down + height, across : across + breadth]
