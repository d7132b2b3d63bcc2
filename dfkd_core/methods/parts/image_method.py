"""ImageMethod: optimises images batch by batch. A method composes it of a start, targets and terms.

start    what is optimised, and where it begins: pixels, or the weights and codes of a generator    (image_starts)
targets  which probabilities the teacher shall give the images                                       (Targets)
terms    what the loss is made of                                                                    (image_terms)
parts    what the method keeps from batch to batch                                                   (part)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.methods.parts.image_parameters import ImageParameters, adam_over, set_rate
from dfkd_core.methods.parts.image_starts import Start
from dfkd_core.methods.parts.image_terms import Step, Term
from dfkd_core.methods.parts.part import Part
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.networks import losses
from dfkd_core.networks.batchnorm import BatchNormStatistics
from dfkd_core.networks.hooks import evaluating
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.images import ImageOptions

FLIPPED = 0.5  # share of the steps that see the batch mirrored

Targets = Callable[[int], Tensor]
"""Number of images → what the teacher shall say of them: probabilities (N, num_classes)."""

Reader = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Images (N, C, H, W) → the teacher's logits (N, num_classes), and what else a method reads of its forward, (N, F)."""


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
    ) -> None:
        self._options = options
        self._teacher = teacher
        self._start = start
        self._targets = targets
        self._terms = terms
        self._draws = draws
        self._device = device
        self._parts = [*([] if past is None else [past]), start, *parts]
        self._teacher_outputs = reader or (lambda images: (teacher(images), None))
        self._past = past
        self._matches_batchnorm = options.bn_weight > 0 and "batchnorm" in teacher.offers
        self._feedback_factor = 1.0
        self._unseen = torch.zeros((0, *teacher.input_space.shape), device=device)  # images not given yet

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """Make one batch. `rate` is ignored: each batch has its own schedule, and late images need their steps too."""
        with evaluating(student) if student is not None else nullcontext():
            reported = {name: loss for part in self._parts for name, loss in part.prepare(student).items()}
            targets = self._targets(self._options.batch_size)  # (N, num_classes)
            images, terms = self._optimise(self._start.begin(targets), targets, student)
        self._finish(images, targets)
        self._unseen = torch.cat([self._unseen, images])
        return reported | terms

    def _finish(self, images: Tensor, targets: Tensor) -> None:
        for part in self._parts:
            part.finish(images, targets)

    def _optimise(
        self, parameters: ImageParameters, targets: Tensor, student: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the images after all steps, or the images of the lowest loss, and the terms of the last step."""
        options, groups = self._options, [*parameters.groups, *self._extra_params()]
        leaves = [leaf for group, _rate in groups for leaf in group]
        optimizer = adam_over(groups, options.betas)
        best, lowest = parameters.images().detach().clone(), math.inf
        terms: dict[str, tuple[float, Tensor]] = {}
        for step in range(options.steps):
            set_rate(optimizer, self._rate_at(step))
            images = parameters.images()  # (N, C, H, W)
            terms = self._weighted_terms(self._look(self._augment(images), targets, student))
            loss = losses.weighted_sum(terms)
            if options.keep == "best" and float(loss.detach()) < lowest:
                best, lowest = images.detach().clone(), float(loss.detach())
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss, inputs=leaves)
            optimizer.step()
            parameters.project()
        last = best if options.keep == "best" else parameters.images().detach().clone()
        return last, {name: value.detach() for name, (_weight, value) in terms.items()}

    def _extra_params(self) -> list[tuple[list[Tensor], float]]:
        return [group for part in self._parts for group in part.groups]

    def _rate_at(self, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / self._options.steps))
        return cosine if self._options.decay == "cosine" else 1.0

    def _augment(self, images: Tensor) -> Tensor:
        """Move images (N, C, H, W), and sometimes mirror them, for teacher and student in one step."""
        if self._options.flip and float(torch.rand((), generator=self._draws)) < FLIPPED:
            images = images.flip(3)
        return shifted(images, self._options.shift, generator=self._draws)

    def _look(self, images: Tensor, targets: Tensor, student: nn.Module | None) -> Step:
        """Run the teacher once, and measure the distance to its BatchNorm statistics if the distance has a weight."""
        with BatchNormStatistics(self._teacher.network) as statistics:
            logits, features = self._teacher_outputs(images)
            distance = None
            if self._matches_batchnorm:
                moments = statistics.moments if self._past is None else self._past.blended(statistics.moments)
                distance = losses.batchnorm_distance(moments)
        return Step(images, targets, logits, features, distance, student)

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
        self._unseen = self._unseen[:0]
        for part in self._parts:
            part.restart()

    def back_off(self) -> None:
        """Halve the weight of the student's feedback, because no other term can make images collapse."""
        self._feedback_factor /= 2

    def state(self) -> dict[str, Any]:
        """Return the images that were not returned yet, the factor of the feedback, and the state of the parts."""
        own = {"unseen": self._unseen, "calmed": self._feedback_factor}
        return own | {name: value for part in self._parts for name, value in part.state().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier method."""
        self._unseen = state["unseen"].to(self._device).clone()
        self._feedback_factor = state["calmed"]
        for part in self._parts:
            part.restore(state)


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
