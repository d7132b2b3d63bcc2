"""ImageMethod: what every method shares that optimises images batch by batch; a method adds targets and terms."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from dfkd_core.methods.parts.canvas import Canvas, PixelCanvas, RedrawnCanvas, adam_over, set_rate, shifted
from dfkd_core.methods.parts.generator_method import Terms
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.networks import inversion_losses, losses
from dfkd_core.networks.batchnorm import BatchNormStatistics
from dfkd_core.networks.hooks import evaluating
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.images import ImageOptions, PixelOptions, RedrawnOptions
from dfkd_core.rng import Streams

OptionsT = TypeVar("OptionsT", bound=ImageOptions)
PixelT = TypeVar("PixelT", bound=PixelOptions)
RedrawnT = TypeVar("RedrawnT", bound=RedrawnOptions)

FLIPPED = 0.5  # share of the steps that see the batch mirrored


class ImageMethod(Synthesizer, Generic[OptionsT]):
    """One update makes one batch of images, which `sample` then gives once."""

    optimises_images: ClassVar[bool] = True

    def __init__(self, options: OptionsT, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._teacher = teacher
        self._draws = streams["images"]
        self._device = device
        self._calmed = 1.0
        self._unseen = torch.zeros((0, *teacher.input_space.shape), device=device)

    @abstractmethod
    def _canvas(self) -> Canvas:
        """The unknowns of a new batch, at their start."""

    def _targets(self, count: int) -> Tensor:
        """What the teacher shall say of a batch: probabilities (N, num_classes). Here classes, all equally often."""
        return nn.functional.one_hot(self._classes(count), self._teacher.num_classes).float()

    def _classes(self, count: int) -> Tensor:
        classes = self._teacher.num_classes
        rounds = [torch.randperm(classes, generator=self._draws) for _ in range(-(-count // classes))]
        return torch.cat(rounds)[:count].to(self._device)

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """One batch. `rate` has no say: each batch has its own schedule, and late images need their steps too."""
        targets = self._targets(self._options.batch_size)
        with evaluating(student) if student is not None else nullcontext():
            images, terms = self._optimised(self._canvas(), targets, student)
        self._finish(images, targets)
        self._unseen = torch.cat([self._unseen, images])
        return terms

    def _finish(self, images: Tensor, targets: Tensor) -> None:
        """Called with every batch that is ready, for methods that learn from what they have made."""
        return

    def _optimised(
        self, canvas: Canvas, targets: Tensor, student: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images after all steps, or those of the lowest loss, and the terms of the last step."""
        options, groups = self._options, [*canvas.unknowns, *self._learnt_beside()]
        unknowns = [unknown for group, _rate in groups for unknown in group]
        optimizer = adam_over(groups, options.betas)
        best, lowest, terms = canvas.images().detach().clone(), math.inf, Terms()
        for step in range(options.steps):
            set_rate(optimizer, self._rate_at(step))
            images = canvas.images()
            terms = self._terms(self._viewed(images), targets, student)
            loss = losses.weighted_sum(terms)
            if options.keep == "best" and float(loss.detach()) < lowest:
                best, lowest = images.detach().clone(), float(loss.detach())
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss, inputs=unknowns)
            optimizer.step()
            canvas.project()
        last = best if options.keep == "best" else canvas.images().detach().clone()
        return last, {name: value.detach() for name, (_weight, value) in terms.items()}

    def _rate_at(self, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / self._options.steps))
        return cosine if self._options.decay == "cosine" else 1.0

    def _learnt_beside(self) -> list[tuple[list[Tensor], float]]:
        """What else follows the gradient of the same loss, in groups, each with its learning rate."""
        return []

    def _viewed(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as teacher and student see them in one step: moved, sometimes mirrored."""
        if self._options.flip and float(torch.rand((), generator=self._draws)) < FLIPPED:
            images = images.flip(3)
        return shifted(images, self._options.shift, generator=self._draws)

    def _terms(self, images: Tensor, targets: Tensor, student: nn.Module | None) -> Terms:
        """Every term of the loss with its weight; terms without weight are not computed."""
        options, teacher = self._options, self._teacher
        with BatchNormStatistics(teacher.network) as statistics:
            logits, features = self._seen(images)
            matched = options.bn_weight and "batchnorm" in teacher.offers
            distance = self._distance(statistics) if matched else None
        terms = {"target": (options.target_weight, self._target_loss(logits, targets))}
        if distance is not None:
            terms["bn"] = (options.bn_weight, distance)
        if options.smoothness_weight:
            terms["smoothness"] = (options.smoothness_weight, self._smoothness(images))
        if options.l2_weight:
            terms["l2"] = (options.l2_weight, inversion_losses.image_norm(images))
        if student is not None and options.adv_weight:
            weight = options.adv_weight * self._calmed
            terms["adv"] = (weight, self._adversarial(images, logits, targets, student))
        return terms | self._own_terms(images, features)

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The teacher's logits, and whatever else of its forward the method's own terms are about: (N, F)."""
        return self._teacher(images), None

    def _own_terms(self, images: Tensor, features: Tensor | None) -> Terms:
        """Terms that only this method has."""
        return {}

    def _target_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return inversion_losses.soft_cross_entropy(logits, targets)

    def _distance(self, statistics: BatchNormStatistics) -> Tensor:
        return statistics.distance()

    def _smoothness(self, images: Tensor) -> Tensor:
        return losses.total_variation(images)

    def _adversarial(self, images: Tensor, logits: Tensor, targets: Tensor, student: nn.Module) -> Tensor:
        """The student's feedback; small where the images are hard for it. Here: both agree, yet differ (CMI)."""
        return inversion_losses.agreeing_kl(logits, student(images), limit=self._options.adv_limit)

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """The oldest images that were not given yet, at most `count`, each once."""
        given, self._unseen = self._unseen[:count], self._unseen[count:]
        return given

    def restart(self) -> None:
        """Nothing outlives a batch but the images that were not given yet; those go."""
        self._unseen = self._unseen[:0]

    def back_off(self) -> None:
        """Weigh the student's feedback half as much for the rest of the run: nothing else can lead images astray."""
        self._calmed /= 2

    def state(self) -> dict[str, Any]:
        """Images that were not given yet, and the weight that the student's feedback has left."""
        return {"unseen": self._unseen, "calmed": self._calmed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with earlier images."""
        self._unseen = state["unseen"].to(self._device).clone()
        self._calmed = state["calmed"]


class PixelMethod(ImageMethod[PixelT]):
    """The unknowns are pixels."""

    def _canvas(self) -> Canvas:
        return PixelCanvas(self._options, self._teacher.input_space, generator=self._draws, device=self._device)

    def _smoothness(self, images: Tensor) -> Tensor:
        if self._options.smoothness == "norm":
            return inversion_losses.variation_norm(images)
        return losses.total_variation(images)


class RedrawnMethod(ImageMethod[RedrawnT]):
    """The unknowns are the weights and the codes of a generator that every batch draws anew."""

    def __init__(self, options: RedrawnT, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        self._past = PastStatistics(options.bn_past)

    def _canvas(self) -> Canvas:
        teacher = self._teacher
        return RedrawnCanvas(
            self._options, teacher.input_space, engine=teacher.engine, generator=self._draws, device=self._device
        )

    def _distance(self, statistics: BatchNormStatistics) -> Tensor:
        return losses.batchnorm_distance(self._past.blended(statistics.moments))

    def _finish(self, images: Tensor, targets: Tensor) -> None:
        self._past.take_in()

    def restart(self) -> None:
        """Forget the images not given yet and the statistics of earlier batches."""
        super().restart()
        self._past = PastStatistics(self._options.bn_past)

    def state(self) -> dict[str, Any]:
        """With the statistics of earlier batches."""
        return {**super().state(), "past": self._past.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with earlier images and statistics."""
        super().restore(state)
        self._past.restore(state["past"])
